#include "launch/process/run_main.h"

#include <fcntl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <system_error>

#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/collectives/agree.h"
#include "launch/process/cpu_check.h"
#include "launch/process/mpi_session.h"
#include "launch/process/signals.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

using Clock = std::chrono::steady_clock;

// How long a rank with an error of its own waits for the others to come with theirs.
constexpr std::chrono::seconds kOwnErrorGrace{1};

/// How one rank's work ended. `agreed`: every rank ends like this.
struct End {
  int code = kExitDone;
  bool agreed = true;
  std::string message;
};

void print(const End& end) {
  if (end.message.empty()) return;
  log_line(end.code == kExitRequested ? LogLevel::kInfo : LogLevel::kError, end.message);
}

bool is_alone() { return !MpiSession::running() || MpiSession::running()->world().size == 1; }

// Errors after which a rank cannot speak to the others any more.
End abort_all(End end) {
  print(end);
  if (!is_alone()) abort_run(end.code);
  end.message.clear();
  return end;
}

/// Unless what was printed did not arrive. `error` is what the system said last, 0 when it is all right by now.
/// A reader that went away wants no more: that is no error, as with every filter.
End with_output(End end, int error) {
  if (std::ferror(stdout) == 0 || error == EPIPE || end.code != kExitDone) return end;
  return {kExitUser, false,
          fmt::format("standard output: {}; free space or send it elsewhere, then run again",
                      error != 0 ? std::strerror(error) : "not all of it could be written")};
}

/// What the system says of standard output now.
int output_error() {
  if (std::fflush(stdout) != 0) return errno;
  // The reason of an earlier failure went with the text; another try has the same.
  return std::ferror(stdout) != 0 && ::write(STDOUT_FILENO, "\n", 1) < 0 ? errno : 0;
}

End run(const std::function<int()>& body) {
  try {
    return {body(), true, {}};
  } catch (const SavedOnRequest& error) {
    return {kExitRequested, true, error.what()};
  } catch (const AgreedError& error) {
    return {kExitUser, true, error.what()};
  } catch (const UserError& error) {
    return {kExitUser, false, error.what()};
  } catch (const PeerError& error) {
    const int64_t step = current_step();
    return abort_all({kExitPeer, true,
                      fmt::format("{}{}; run again to continue from the newest checkpoint",
                                  error.what(), step >= 0 ? fmt::format(", step {}", step) : "")});
  } catch (const BugError& error) {
    return abort_all(
        {kExitBug, true, fmt::format("this is a bug, please report it: {}", error.what())});
  } catch (const std::system_error& error) {
    if (std::ferror(stdout) != 0) return with_output({}, error.code().value());
    return abort_all(
        {kExitBug, true, fmt::format("unexpected error, please report it: {}", error.what())});
  } catch (const std::exception& error) {
    return abort_all(
        {kExitBug, true, fmt::format("unexpected error, please report it: {}", error.what())});
  }
}

// All ranks arrive here before any of them ends MPI, and return one code: mpirun takes a rank that returns
// early with an error for a reason to kill the rest.
int end_together(MpiSession& session, const End& end) {
  const World world = session.world();
  const Phase phase("end of the run");
  if (end.agreed && world.rank == 0) print(end);
  constexpr int64_t kFine = std::numeric_limits<int64_t>::max();
  const int64_t mine = end.code == kExitDone ? kFine : (int64_t{world.rank} << 8) | end.code;
  int64_t first = kFine;  // the lowest rank that failed, and its code
  detail::arrived();
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iallreduce(&mine, &first, 1, MPI_INT64_T, MPI_MIN, session.ending(), &request),
            "end of the run");
  const Clock::time_point begin = Clock::now();
  for (;;) {
    int done = 0;
    check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "end of the run");
    if (done) break;
    if (!end.agreed && Clock::now() - begin > kOwnErrorGrace) abort_all(end);
    const timespec pause{0, 1'000'000};
    nanosleep(&pause, nullptr);
  }
  if (!end.agreed && first == mine) print(end);
  return first == kFine ? int{kExitDone} : static_cast<int>(first & 0xff);
}

// The loader runs it before the constructors of the libraries, which take most of a start's time.
__attribute__((section(".preinit_array"), used)) void (*const block_first)() = block_stop_signals;

/// A file must not get the number of a standard stream that was closed, or it would be written to; nor can what is
/// printed to one be lost in silence.
void take_closed_streams() {
  for (int stream = 0; stream <= 2; ++stream)
    if (fcntl(stream, F_GETFD) < 0) [[maybe_unused]]
      const int taken = open("/dev/null", O_RDONLY);
}

}  // namespace

int run_main(const std::function<int()>& body) {
  detail::cpu_checked();
  take_closed_streams();
  catch_stop_signals();
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a file too large is an error of its write, like a full disk
  End end = run(body);
  answer_stops(StopAnswer::kNone);
  end = with_output(end, output_error());
  try {
    if (is_alone()) {
      print(end);
    } else {
      end.code = end_together(*MpiSession::running(), end);
    }
    log_flush();
    std::fflush(nullptr);
    if (MpiSession::running()) MpiSession::running()->finish();
  } catch (const PeerError& error) {
    abort_all({kExitPeer, true, error.what()});
    end.code = kExitPeer;
  }
  return end.code;
}

}  // namespace kt
