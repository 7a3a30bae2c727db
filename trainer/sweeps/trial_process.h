#pragma once

#include <filesystem>
#include <ios>
#include <optional>

#include "launch/process/child.h"
#include "trainer/sweeps/attempts.h"
#include "trainer/sweeps/trials.h"

namespace kt {

/// An attempt of ours, from when it was claimed to its end: the process that trains, alone or under the launcher.
class TrialProcess {
 public:
  TrialProcess(const Sweep& sweep, size_t trial, Attempt attempt);

  const Attempt& attempt() const { return attempt_; }
  const Trial& trial() const { return trial_; }
  bool has_started() const { return child_.has_value(); }

  /// Unless what a lost worker had started is still saving. Throws: UserError when it cannot be started.
  void start_when_free();
  /// It saves and ends.
  void ask_to_stop() const;
  void beat() const { kt::beat(folder_, attempt_); }
  /// Whether it has ended; then that is recorded. `asked`: it was asked to stop, so that its end is no fault.
  bool ended(bool asked);

 private:
  std::filesystem::path output() const { return folder_ / "output.txt"; }
  void take_result();

  const Sweep& sweep_;
  const Trial& trial_;
  std::filesystem::path folder_;
  Attempt attempt_;
  std::optional<Child> child_;
  int64_t step_before_ = -1;          // of the newest checkpoint
  std::streamoff output_before_ = 0;  // bytes of earlier attempts
};

}  // namespace kt
