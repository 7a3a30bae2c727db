#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "launch/base/host_device.h"
#include "launch/base/random.h"
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
  /// At least what any step takes from `shards` together.
  int64_t most_rows(Range shards) const;
  /// Samples of step t over all shards: what its mean divides by. May be 0: no update then.
  int64_t batch_size(int64_t step) const;

 private:
  std::vector<int64_t> samples_;
  std::vector<int64_t> phase_;
  int64_t total_ = 0;
  int64_t steps_ = 0;
};

/// A permutation of [0, n) any position of which is reached at once: a Feistel network of six rounds over the pairs
/// (left, right) of [0, a) x [0, b), a = ceil(sqrt n), b = ceil(n / a), walked along its cycle until it lands inside,
/// which it does at once but for less than one position in sqrt n. n is below 2^31.
/// Source: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002 (generalised Feistel, cycle
/// walking); rounds by a multiplicative hash, scaled by its high bits.
class Permutation {
 public:
  Permutation(int64_t n, uint64_t key);
  KT_HOST_DEVICE int64_t operator()(int64_t position) const {
    auto value = static_cast<uint32_t>(position);
    do {
      uint32_t right = value / left_size_;
      uint32_t left = value - right * left_size_;
      for (int round = 0; round < kRounds; round += 2) {
        left = reduced(left + hash(right, round_key_[round], left_size_), left_size_);
        right = reduced(right + hash(left, round_key_[round + 1], right_size_), right_size_);
      }
      value = right * left_size_ + left;
    } while (value >= n_);
    return value;
  }

 private:
  static constexpr int kRounds = 6;
  /// `x` of [0, 2 size) less size where it can: one of the two wraps around, and the smaller one is meant. A branch
  /// would be mispredicted half of the time.
  KT_HOST_DEVICE static uint32_t reduced(uint32_t x, uint32_t size) {
    return x < x - size ? x : x - size;
  }
  /// In [0, size).
  KT_HOST_DEVICE static uint32_t hash(uint32_t x, uint32_t key, uint32_t size) {
    x = (x ^ key) * 0x9e3779b1u;
    x = (x ^ (x >> 15)) * 0x85ebca77u;
    return static_cast<uint32_t>((static_cast<uint64_t>(x) * size) >> 32);
  }
  uint32_t n_;
  uint32_t left_size_ = 1, right_size_ = 1;
  uint32_t round_key_[kRounds];
};

/// The order in which a shard gives its samples in an epoch: a permutation of its groups of four samples, which share
/// a cache line, so that a step waits for memory once a group. Samples lie in an order drawn once (`first_order`): who
/// shares a group is left to chance, but is the same in every epoch.
class EpochOrder {
 public:
  static constexpr int64_t kGroup = 4;

  EpochOrder(int64_t n, uint64_t key) : n_(n), groups_((n + kGroup - 1) / kGroup, key) {}
  /// The place of the first sample of a group of positions. The last group may be cut short: places from n on are no
  /// sample's.
  KT_HOST_DEVICE int64_t group(int64_t k) const { return groups_(k) * kGroup; }
  KT_HOST_DEVICE int64_t operator()(int64_t position) const {
    do position = group(position / kGroup) + position % kGroup;
    while (position >= n_);
    return position;
  }

 private:
  int64_t n_;
  Permutation groups_;
};

/// The order in which `shard` gives its samples in `epoch`.
EpochOrder epoch_order(int64_t n, uint64_t seed, int64_t epoch, int64_t shard);

/// The order in which the samples of `shard` lie in memory: place k holds sample first_order(k) in source order.
Permutation first_order(int64_t n, uint64_t seed, int64_t shard);

}  // namespace kt
