#include "launch/process/terminal.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>

namespace kt {
namespace {

int find_terminal() {
  if (isatty(STDERR_FILENO)) return STDERR_FILENO;
  // Open MPI starts the ranks of its own host as children of mpirun. Written past its pipe, a line that is to vanish
  // has vanished before the next of the log comes.
  if (std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr) return -1;
  const int file = open(fmt::format("/proc/{}/fd/2", getppid()).c_str(),
                        O_WRONLY | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0 || isatty(file)) return file;
  close(file);
  return -1;
}

}  // namespace

int terminal() {
  static const int file = find_terminal();
  return file;
}

int terminal_columns() {
  winsize size{};
  constexpr int kUsual = 80;
  return ioctl(terminal(), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kUsual;
}

}  // namespace kt
