#include "trainer/samples.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "launch/agree.h"
#include "launch/errors.h"
#include "launch/random.h"
#include "sharding/gather_shards.h"
#include "sharding/schedule.h"

namespace kt {
namespace {

/// Whole numbers in the order of the times, those before 1970 too.
uint64_t time_key(double seconds) {
  const auto bits = std::bit_cast<uint64_t>(seconds + 0.);  // -0 becomes 0
  constexpr uint64_t kSign = uint64_t{1} << 63;
  return bits & kSign ? ~bits : bits | kSign;
}

/// The largest time that at least `wanted` of all rows have reached, found by bisection over the bits.
/// Collective: all ranks.
uint64_t time_threshold(const std::vector<std::vector<double>>& times, int64_t wanted,
                        Communicator& comm) {
  uint64_t threshold = 0;
  for (int bit = 63; bit >= 0; --bit) {
    const uint64_t candidate = threshold | (uint64_t{1} << bit);
    int64_t reached = 0;
    for (const auto& shard : times)
      reached += std::count_if(shard.begin(), shard.end(),
                               [&](double t) { return time_key(t) >= candidate; });
    comm.all_reduce(std::span(&reached, 1), Reduction::kSum);
    if (reached >= wanted) threshold = candidate;
  }
  return threshold;
}

}  // namespace

std::vector<ShardSamples> load_samples(const Dataset& dataset, const Config& config, Range shards,
                                       MpiCommunicator& comm) {
  const double fraction = config.data.validation.fraction;
  const bool temporal = config.data.validation.kind == ValidationKind::kTemporal && fraction > 0;
  if (temporal && !dataset.has_timestamps())
    user_error(
        "{}: data.validation.kind is temporal, but not every training row has a timestamp; use "
        "data.validation.kind=random",
        dataset.path().string());

  std::vector<Shard> read;
  std::vector<std::vector<double>> times;
  agree(comm, [&] {
    for (int64_t j = shards.begin; j < shards.end; ++j) {
      read.push_back(dataset.read_shard(j));
      if (temporal) times.push_back(dataset.read_timestamps(j));
    }
  });
  uint64_t threshold = 0;
  if (temporal) {
    const auto wanted =
        static_cast<int64_t>(std::ceil(fraction * static_cast<double>(dataset.train_rows())));
    threshold = time_threshold(times, wanted, comm);
  }

  const auto clip = static_cast<float>(config.data.target.clip);
  const auto seed = static_cast<uint64_t>(config.train.seed);
  std::vector<ShardSamples> samples(read.size());
  Samples train;
  for (size_t j = 0; j < read.size(); ++j) {
    Shard& shard = read[j];
    train.clear();
    for (size_t k = 0; k < shard.row.size(); ++k) {
      const bool held_out =
          temporal
              ? time_key(times[j][k]) >= threshold
              : to_uniform(random_bits(seed, Purpose::kValidationSplit, shard.row[k])) < fraction;
      (held_out ? samples[j].validation : train)
          .push_back({.user = shard.user[k],
                      .item = shard.item[k],
                      .label = clip > 0 ? std::min(shard.label[k], clip) : shard.label[k],
                      .row = shard.row[k]});
    }
    const Permutation order =
        first_order(std::ssize(train), seed, shards.begin + static_cast<int64_t>(j));
    samples[j].train.resize(train.size());
    for (size_t k = 0; k < train.size(); ++k)
      samples[j].train[k] = train[order(static_cast<int64_t>(k))];
    samples[j].users = std::move(shard.users);
    shard = {};
  }
  return samples;
}

std::vector<int64_t> gather_train_counts(const std::vector<ShardSamples>& samples, int64_t shards,
                                         Communicator& comm) {
  std::vector<int64_t> own;
  for (const ShardSamples& shard : samples) own.push_back(std::ssize(shard.train));
  return gather_shards<int64_t>(comm, own, shards);
}

}  // namespace kt
