#include "launch/signals.h"

#include <signal.h>

#include <initializer_list>

namespace kt {
namespace {

volatile sig_atomic_t requested = 0;

extern "C" void request_stop(int) { requested = 1; }

}  // namespace

void catch_stop_signals() {
  for (const int number : {SIGUSR2, SIGTERM, SIGINT}) {
    struct sigaction action {};
    action.sa_handler = request_stop;
    action.sa_flags = SA_RESTART | (number == SIGINT ? SA_RESETHAND : 0);
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, nullptr);
  }
}

bool stop_requested() { return requested != 0; }

}  // namespace kt
