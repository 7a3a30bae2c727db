#pragma once

#include <fmt/core.h>

#include <stdexcept>
#include <string>

/// What can go wrong, by who can mend it. Only `run_main` (launch/process/run_main.h) turns these into exit codes.
namespace kt {

/// Exit codes scripts rely on.
enum ExitCode : int {
  kExitDone = 0,
  kExitUser = 2,       ///< the user can mend it
  kExitBug = 70,       ///< a broken invariant
  kExitPeer = 75,      ///< a peer or the network failed: run again to continue
  kExitRequested = 85  ///< saved on request: run again to continue
};

/// Configuration, data, a checkpoint that does not fit, a non-finite loss. The message says place
/// (`file:line`), what was got, what was expected, and what to do.
class UserError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A broken invariant of ours; thrown by KT_CHECK. Ends in an abort of all ranks.
class BugError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// MPI or NCCL failed, a time-out, a lost rank. Ends in an abort of all ranks; a restart continues.
class PeerError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// State is on disk after a signal, a `stop` file or `run.max_seconds`; all ranks throw it together.
class SavedOnRequest : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws a UserError with a formatted message.
template <class... Args>
[[noreturn]] void user_error(fmt::format_string<Args...> format, Args&&... args) {
  throw UserError(fmt::format(format, std::forward<Args>(args)...));
}

namespace detail {
[[noreturn]] inline void check_failed(const char* file, int line, const char* condition,
                                      const std::string& detail) {
  throw BugError(fmt::format("{}:{}: check failed: {}{}{}", file, line, condition,
                             detail.empty() ? "" : ": ", detail));
}
inline std::string check_detail() { return {}; }
template <class... Args>
std::string check_detail(fmt::format_string<Args...> format, Args&&... args) {
  return fmt::format(format, std::forward<Args>(args)...);
}
}  // namespace detail

/// Always on, release builds too; for invariants only, never for what a user can cause.
#define KT_CHECK(condition, ...)                                           \
  do {                                                                     \
    if (!(condition)) [[unlikely]]                                         \
      ::kt::detail::check_failed(__FILE__, __LINE__, #condition,           \
                                 ::kt::detail::check_detail(__VA_ARGS__)); \
  } while (false)

}  // namespace kt
