#include "sharding/schedule.h"

#include <bit>
#include <numeric>

#include "launch/base/errors.h"

namespace kt {
namespace {

int64_t reverse_bits(int64_t value, int bits) {
  int64_t reversed = 0;
  for (int k = 0; k < bits; ++k) reversed |= ((value >> k) & 1) << (bits - 1 - k);
  return reversed;
}

}  // namespace

Schedule::Schedule(std::vector<int64_t> samples, int64_t global_batch)
    : samples_(std::move(samples)) {
  const auto shards = static_cast<int64_t>(samples_.size());
  KT_CHECK(global_batch > 0 && std::has_single_bit(static_cast<uint64_t>(shards)));
  total_ = std::accumulate(samples_.begin(), samples_.end(), int64_t{0});
  steps_ = (total_ + global_batch - 1) / global_batch;
  const int bits = std::countr_zero(static_cast<uint64_t>(shards));
  for (int64_t j = 0; j < shards; ++j) phase_.push_back(steps_ * reverse_bits(j, bits) / shards);
}

Range Schedule::positions(int64_t shard, int64_t step) const {
  return {taken_before(samples_[shard], phase_[shard], step, steps_),
          taken_before(samples_[shard], phase_[shard], step + 1, steps_)};
}

int64_t Schedule::most_rows(Range shards) const {
  int64_t rows = 0;
  for (int64_t j = shards.begin; j < shards.end && steps_ > 0; ++j)
    rows += (samples_[j] + steps_ - 1) / steps_;
  return rows;
}

int64_t Schedule::batch_size(int64_t step) const {
  int64_t size = 0;
  for (size_t j = 0; j < samples_.size(); ++j)
    size += positions(static_cast<int64_t>(j), step).size();
  return size;
}

Permutation::Permutation(int64_t n, uint64_t key) : n_(static_cast<uint32_t>(n)) {
  KT_CHECK(n >= 0 && n < int64_t{1} << 31, "a permutation of {}", n);
  while (static_cast<int64_t>(left_size_) * left_size_ < n) ++left_size_;
  if (n > 0) right_size_ = (n_ + left_size_ - 1) / left_size_;
  for (int k = 0; k < kRounds; ++k)
    round_key_[k] = static_cast<uint32_t>(mix(key + static_cast<uint64_t>(k)) >> 32);
}

EpochOrder epoch_order(int64_t n, uint64_t seed, int64_t epoch, int64_t shard) {
  return {n, random_bits(seed, Purpose::kEpochOrder, static_cast<uint64_t>(epoch),
                         static_cast<uint64_t>(shard))};
}

Permutation first_order(int64_t n, uint64_t seed, int64_t shard) {
  return {n, random_bits(seed, Purpose::kFirstOrder, static_cast<uint64_t>(shard))};
}

}  // namespace kt
