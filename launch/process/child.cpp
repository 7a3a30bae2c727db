#include "launch/process/child.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "launch/base/errors.h"

namespace kt {
namespace {

constexpr int kGrace_ms = 10'000;
constexpr timespec kTick{0, 20'000'000};

int open_output(const std::filesystem::path& output) {
  return output.empty() ? -1
                        : open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
}

/// The child's side: async-signal-safe calls alone, since other threads of this process may hold any lock.
[[noreturn]] void become(char* const* arguments, int output, pid_t parent, int report) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(1);  // it died before the line above
  sigset_t none;
  sigemptyset(&none);
  for (const int number : {SIGPIPE, SIGXFSZ}) ::signal(number, SIG_DFL);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  if (output >= 0) {
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
  }
  execvp(arguments[0], arguments);
  const int error = errno;
  [[maybe_unused]] const ssize_t told = write(report, &error, sizeof error);
  _exit(127);
}

}  // namespace

Child::Child(const std::vector<std::string>& command, const std::filesystem::path& output) {
  KT_CHECK(!command.empty(), "no program is named");
  std::vector<char*> arguments;
  for (const std::string& argument : command)
    arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);

  const int file = open_output(output);
  if (!output.empty() && file < 0)
    user_error("{}: cannot be written ({}); check the folder and its free space", output.string(),
               std::strerror(errno));
  std::array<int, 2> report{};
  KT_CHECK(pipe2(report.data(), O_CLOEXEC) == 0, "pipe: {}", std::strerror(errno));
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) become(arguments.data(), file, parent, report[1]);
  const int fork_error = errno;
  close(report[1]);
  if (file >= 0) close(file);
  int error = pid_ < 0 ? fork_error : 0;
  // Ends at once when the program has started: its side of the pipe is closed then.
  if (pid_ > 0 && read(report[0], &error, sizeof error) != sizeof error) error = 0;
  close(report[0]);
  if (error == 0) return;
  if (pid_ > 0) wait();
  pid_ = -1;
  user_error("{}: cannot be started ({}); check the name and the PATH", command[0],
             std::strerror(error));
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), code_(std::exchange(other.code_, std::nullopt)) {}

Child::~Child() {
  if (pid_ <= 0 || ended()) return;
  kill(-pid_, SIGTERM);
  for (int waited_ms = 0; waited_ms < kGrace_ms; waited_ms += 20) {
    if (ended()) return;
    nanosleep(&kTick, nullptr);
  }
  kill(-pid_, SIGKILL);
  wait();
}

void Child::signal(int number) const {
  if (!code_) kill(pid_, number);
}

std::optional<int> Child::ended() { return reap(WNOHANG); }

int Child::wait() { return reap(0).value(); }

std::optional<int> Child::reap(int options) {
  if (code_) return code_;
  int status = 0;
  pid_t ended = 0;
  do {
    ended = waitpid(pid_, &status, options);
  } while (ended < 0 && errno == EINTR);
  KT_CHECK(ended >= 0, "waitpid {}: {}", pid_, std::strerror(errno));
  if (ended > 0) code_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return code_;
}

Output output_of(const std::vector<std::string>& command) {
  const int file = memfd_create("output", MFD_CLOEXEC);
  KT_CHECK(file >= 0, "memfd_create: {}", std::strerror(errno));
  const std::filesystem::path path = fmt::format("/proc/self/fd/{}", file);
  Output output;
  try {
    output.code = Child(command, path).wait();
  } catch (...) {
    close(file);
    throw;
  }
  std::ifstream stream(path, std::ios::binary);
  output.text.assign(std::istreambuf_iterator<char>(stream), {});
  close(file);
  return output;
}

}  // namespace kt
