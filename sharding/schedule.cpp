#include "sharding/schedule.h"

#include <bit>
#include <numeric>

#include "launch/errors.h"

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

int64_t Schedule::batch_size(int64_t step) const {
  int64_t size = 0;
  for (size_t j = 0; j < samples_.size(); ++j)
    size += positions(static_cast<int64_t>(j), step).size();
  return size;
}

Permutation::Permutation(int64_t n, uint64_t key) : n_(static_cast<uint64_t>(n)) {
  if (n_ > 1) half_bits_ = (static_cast<int>(std::bit_width(n_ - 1)) + 1) / 2;
  for (int k = 0; k < kRounds; ++k) round_key_[k] = mix(key + static_cast<uint64_t>(k));
}

Permutation epoch_order(int64_t n, uint64_t seed, int64_t epoch, int64_t shard) {
  return {n, random_bits(seed, Purpose::kRowOrder, static_cast<uint64_t>(epoch),
                         static_cast<uint64_t>(shard))};
}

}  // namespace kt
