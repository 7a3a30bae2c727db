#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/host_device.h"
#include "launch/random.h"
#include "sharding/plan.h"

/// Which rows a step takes from each shard: stratified sampling without replacement, by arithmetic
/// alone, so that every rank knows every count and a resume needs only the step's number.
namespace kt {

/// c(t) of one shard: the samples it has given before step t.
KT_HOST_DEVICE constexpr int64_t taken_before(int64_t samples, int64_t phase, int64_t step,
                                              int64_t steps) {
  return (step * samples + phase) / steps;
}

/// The steps of one epoch.
class Schedule {
 public:
  /// Shapes: samples [V] training samples of each shard. T = ceil(sum / global_batch) steps.
  Schedule(std::vector<int64_t> samples, int64_t global_batch);

  int64_t steps() const { return steps_; }
  int64_t samples() const { return total_; }
  int64_t samples(int64_t shard) const { return samples_[shard]; }
  int64_t phase(int64_t shard) const { return phase_[shard]; }
  /// The positions of shard j's order that step t of an epoch takes: [c_j(t), c_j(t+1)) with
  /// c_j(t) = floor((t * n_j + p_j) / T), p_j = floor(T * bitrev(j) / V). Each sample comes once an
  /// epoch.
  Range positions(int64_t shard, int64_t step) const;
  /// Samples of step t over all shards: what its mean divides by. May be 0: no update then.
  int64_t batch_size(int64_t step) const;

 private:
  std::vector<int64_t> samples_;
  std::vector<int64_t> phase_;
  int64_t total_ = 0;
  int64_t steps_ = 0;
};

/// A permutation of [0, n) any position of which is reached at once: a Feistel network of six
/// rounds over the next even power of two, walked along its cycle until it lands inside. Source:
/// Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002 (cycle walking).
class Permutation {
 public:
  Permutation(int64_t n, uint64_t key);
  KT_HOST_DEVICE int64_t operator()(int64_t position) const {
    const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
    auto value = static_cast<uint64_t>(position);
    do {
      uint64_t left = value >> half_bits_;
      uint64_t right = value & mask;
      for (const uint64_t key : round_key_) {
        const uint64_t next = left ^ (mix(right ^ key) & mask);
        left = right;
        right = next;
      }
      value = (left << half_bits_) | right;
    } while (value >= n_);
    return static_cast<int64_t>(value);
  }

 private:
  static constexpr int kRounds = 6;
  uint64_t n_;
  int half_bits_ = 1;
  uint64_t round_key_[kRounds];
};

/// The order in which `shard` gives its samples in `epoch`.
Permutation epoch_order(int64_t n, uint64_t seed, int64_t epoch, int64_t shard);

}  // namespace kt
