#include "trainer/run/samples.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/base/random.h"
#include "launch/collectives/agree.h"
#include "sharding/gather_shards.h"
#include "sharding/schedule.h"
#include "sharding/shard_moments.h"

namespace kt {
namespace {

/// Whole numbers in the order of the times, those before 1970 too.
uint64_t time_key(double seconds) {
  const auto bits = std::bit_cast<uint64_t>(seconds + 0.);  // -0 becomes 0
  constexpr uint64_t kSign = uint64_t{1} << 63;
  return bits & kSign ? ~bits : bits | kSign;
}

/// Rows of all ranks at this time or later. Collective: all ranks.
int64_t rows_from(uint64_t key, const std::vector<ShardRows>& shards, Communicator& comm) {
  int64_t rows = 0;
  for (const ShardRows& shard : shards)
    rows += std::ranges::count_if(shard.timestamp, [&](double t) { return time_key(t) >= key; });
  comm.all_reduce(std::span(&rows, 1), Reduction::kSum);
  return rows;
}

/// The time from which on rows are held out: the largest that at least the wanted share of all rows have reached,
/// found by bisection over the bits. Warns when ties hold out far more. Collective: all ranks. Throws: AgreedError when
/// they leave nothing to train on.
uint64_t time_threshold(const std::vector<ShardRows>& shards, const Dataset& dataset,
                        double fraction, Communicator& comm) {
  const int64_t rows = rows_from(0, shards, comm);
  const auto wanted = static_cast<int64_t>(std::ceil(fraction * static_cast<double>(rows)));
  uint64_t threshold = 0;
  int64_t reached = rows;
  for (int bit = 63; bit >= 0; --bit) {
    const uint64_t candidate = threshold | (uint64_t{1} << bit);
    const int64_t count = rows_from(candidate, shards, comm);
    if (count < wanted) continue;
    threshold = candidate;
    reached = count;
  }
  const int64_t later = rows_from(threshold + 1, shards, comm);
  const auto percent = [&](int64_t n) {
    return fmt::format("{:.3g} %", 100 * static_cast<double>(n) / static_cast<double>(rows));
  };
  const std::string ties = fmt::format("{} rows share one time", reached - later);
  const std::string remedy =
      later == 0
          ? "set data.validation.kind=random"
          : fmt::format("hold out {} at most, or set data.validation.kind=random", percent(later));
  if (reached == rows && wanted < rows)
    throw AgreedError(fmt::format(
        "{}: the latest {} of the rows are to be held out (data.validation), but {}, so "
        "that none would be left to train on; {}",
        dataset.path().string(), percent(wanted), ties, remedy));
  // A tie of a few rows is nobody's concern.
  const int64_t more = reached - wanted;
  if (comm.world().rank == 0 && 10 * more > wanted && 100 * more > rows)
    log_warning(
        "{}: the latest {} of the rows are to be held out (data.validation), {} are: {}; {}",
        dataset.path().string(), percent(wanted), percent(reached), ties, remedy);
  return threshold;
}

/// A shard as `data` and its rules leave it, and how many rows they took.
DropCounts read_clean_shard(const Dataset& dataset, int64_t shard, const Config::Data& data,
                            const CleaningRules& rules, ShardRows& rows) {
  rows.shard = dataset.read_shard(shard);
  if (!cleans(data)) return {};
  if (rules.max_duration_ms > 0) rows.durations = dataset.read_durations(shard);
  const DropCounts dropped = clean(rows, rules);
  rows.durations = {};
  return dropped;
}

/// Makes samples of a shard's rows: for validation where `held_out(k)` says so, the others in the order they lie in.
template <class HeldOut>
void split(Shard& shard, int64_t number, uint64_t seed, ShardSamples& to, HeldOut&& held_out) {
  Samples train;
  for (size_t k = 0; k < shard.row.size(); ++k)
    (held_out(k) ? to.validation : train)
        .push_back({.user = shard.user[k],
                    .item = shard.item[k],
                    .label = shard.label[k],
                    .row = shard.row[k]});
  const Permutation order = first_order(std::ssize(train), seed, number);
  to.train.resize(train.size());
  for (size_t k = 0; k < train.size(); ++k) to.train[k] = train[order(static_cast<int64_t>(k))];
  to.users = std::move(shard.users);
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

  const auto seed = static_cast<uint64_t>(config.train.seed);
  std::vector<ShardSamples> samples(static_cast<size_t>(shards.size()));
  std::vector<ShardRows> read;  // of all shards; empty where each is split as it comes
  agree(comm, [&] {
    const CleaningRules rules = cleaning_rules(dataset, config.data);
    for (int64_t j = shards.begin; j < shards.end; ++j) {
      ShardSamples& to = samples[j - shards.begin];
      ShardRows rows;
      if (temporal) rows.timestamp = dataset.read_timestamps(j);
      to.dropped = read_clean_shard(dataset, j, config.data, rules, rows);
      if (temporal) {
        read.push_back(std::move(rows));
        continue;
      }
      split(rows.shard, j, seed, to, [&](size_t k) {
        const uint64_t bits = random_bits(seed, Purpose::kValidationSplit, rows.shard.row[k]);
        return to_uniform(bits) < fraction;
      });
    }
  });
  if (!temporal) return samples;
  const uint64_t threshold = time_threshold(read, dataset, fraction, comm);
  for (size_t j = 0; j < read.size(); ++j) {
    split(read[j].shard, shards.begin + static_cast<int64_t>(j), seed, samples[j],
          [&](size_t k) { return time_key(read[j].timestamp[k]) >= threshold; });
    read[j] = {};
  }
  return samples;
}

double mean_label(const Dataset& dataset, const Config::Data& data, MpiCommunicator& comm) {
  if (data.target.clip == 0 && !cleans(data)) return dataset.train_label_mean();
  const Range own = shards_of_rank(dataset.shards(), comm.world());
  const float most = data.target.clip > 0 ? static_cast<float>(data.target.clip)
                                          : std::numeric_limits<float>::infinity();
  std::vector<Moments> moments;
  agree(comm, [&] {
    const CleaningRules rules = cleaning_rules(dataset, data);
    for (int64_t j = own.begin; j < own.end; ++j) {
      ShardRows rows;
      read_clean_shard(dataset, j, data, rules, rows);
      moments.push_back(moments_of([&](auto&& visit) {
        for (const float label : rows.shard.label) visit(std::min(label, most));
      }));
    }
  });
  return merge_over_shards(moments, dataset.shards(), comm).mean;
}

std::vector<int64_t> gather_train_counts(const std::vector<ShardSamples>& samples, int64_t shards,
                                         Communicator& comm) {
  std::vector<int64_t> own;
  for (const ShardSamples& shard : samples) own.push_back(std::ssize(shard.train));
  return gather_shards<int64_t>(comm, own, shards);
}

std::vector<int64_t> users_with_rows(std::span<const ShardSamples> samples) {
  std::vector<int64_t> counts;
  for (const ShardSamples& shard : samples) {
    std::vector<uint8_t> has_rows(shard.users.size(), 0);
    for (const Sample& sample : shard.train) has_rows[sample.user] = 1;
    counts.push_back(std::ranges::count(has_rows, uint8_t{1}));
  }
  return counts;
}

DropCounts sum_dropped(const std::vector<ShardSamples>& samples, Communicator& comm) {
  DropCounts dropped{};
  for (const ShardSamples& shard : samples)
    for (size_t reason = 0; reason < kDrops; ++reason) dropped[reason] += shard.dropped[reason];
  comm.all_reduce(std::span<int64_t>(dropped), Reduction::kSum);
  return dropped;
}

}  // namespace kt
