#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "launch/base/errors.h"
#include "sharding/plan.h"
#include "sharding/schedule.h"

namespace kt {

/// Where the rows of a rank's steps lie when all of an epoch are laid out in (step, shard, position) order.
class StepRows {
 public:
  /// `group`: rows of a sample.
  StepRows(const Schedule& schedule, Range shards, int64_t group) : units_(shards.size()) {
    for (int64_t t = 0; t < schedule.steps(); ++t)
      for (int64_t j = shards.begin; j < shards.end; ++j)
        begin_.push_back(begin_.back() + group * schedule.positions(j, t).size());
    for (int64_t t = 0; t < steps(); ++t) {
      const Range rows = of({t, t + 1});
      KT_CHECK(rows.size() <= INT32_MAX, "{} rows in one step of one rank", rows.size());
      most_of_step_ = std::max(most_of_step_, rows.size());
    }
    for (size_t k = 1; k < begin_.size(); ++k)
      most_of_unit_ = std::max(most_of_unit_, begin_[k] - begin_[k - 1]);
  }

  int64_t units() const { return units_; }
  int64_t steps() const {
    return units_ > 0 ? static_cast<int64_t>(begin_.size() - 1) / units_ : 0;
  }
  /// The rows of `steps`.
  Range of(Range steps) const { return {begin_[steps.begin * units_], begin_[steps.end * units_]}; }
  /// Of so many steps that come one after the other.
  int64_t most_of(int64_t steps_at_once) const {
    int64_t most = 0;
    for (int64_t t = 0; t < steps(); ++t)
      most = std::max(most, of({t, std::min(t + steps_at_once, steps())}).size());
    return most;
  }
  int64_t most_of_step() const { return most_of_step_; }
  int64_t most_of_unit() const { return most_of_unit_; }
  /// Of each shard of each step, then the end. Shapes: [steps * units + 1].
  const std::vector<int64_t>& begin() const { return begin_; }

 private:
  int64_t units_;
  std::vector<int64_t> begin_{0};
  int64_t most_of_step_ = 0, most_of_unit_ = 0;
};

}  // namespace kt
