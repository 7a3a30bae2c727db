#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace kt {

/// A program that this one started and waits for: mpirun, or this program again. Its signals are those of a fresh start,
/// none blocked; it stands in a process group of its own, so that what a terminal sends to all (Ctrl-C) reaches it only
/// as `signal` passes it on. It gets SIGTERM when this process dies.
/// One thread makes all children and waits for them; it must live as long as they do.
class Child {
 public:
  /// Starts `command`, found as a shell finds it. `output`: the file that its stdout and stderr are added to; empty: ours.
  /// Throws: UserError when there is no such program, or `output` cannot be written.
  explicit Child(const std::vector<std::string>& command, const std::filesystem::path& output = {});
  Child(Child&& other) noexcept;
  Child& operator=(Child&&) = delete;
  /// Kills what still runs, with SIGTERM to its whole group, SIGKILL ten seconds later, and waits for it.
  ~Child();

  pid_t pid() const { return pid_; }
  /// To the program alone; mpirun passes SIGUSR2 on to its ranks.
  void signal(int number) const;
  /// How it ended, 128 + signal when one did it; nothing while it runs. Does not wait.
  std::optional<int> ended();
  /// Waits for its end.
  int wait();

 private:
  std::optional<int> reap(int options);

  pid_t pid_ = -1;
  std::optional<int> code_;
};

/// What a program printed, to stdout and stderr together, and how it ended.
struct Output {
  int code = 0;
  std::string text;
};
/// Runs `command` to its end. Throws: UserError when there is no such program.
Output output_of(const std::vector<std::string>& command);

}  // namespace kt
