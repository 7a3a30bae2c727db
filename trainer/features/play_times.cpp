#include "trainer/features/play_times.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>

#include "launch/base/errors.h"
#include "launch/base/math.h"
#include "launch/collectives/agree.h"
#include "models/features/scaling.h"
#include "models/graph/watch_time.h"
#include "trainer/features/side_columns.h"

namespace kt {
namespace {

constexpr const char* kDuration = "play_times.duration";
constexpr const char* kUnit = "play_times.unit";
constexpr const char* kQuantiles = "play_times.quantiles";
constexpr const char* kLevels = "play_times.levels";
constexpr double kSecond = 1000;  // milliseconds

/// Milliseconds that the training rows were played, in their order. Shapes: [own shards][rows].
using Played = std::vector<std::vector<int32_t>>;

Played read_played(const Dataset& dataset, std::span<const ShardSamples> samples, int64_t first,
                   double label_clip) {
  Played played;
  for (int64_t j = 0; j < std::ssize(samples); ++j) {
    const std::vector<uint32_t> row = dataset.read_shard(first + j).row;
    const Durations all = dataset.read_durations(first + j);
    std::vector<int32_t>& of_shard = played.emplace_back();
    for (const Sample& sample : samples[j].train)
      of_shard.push_back([&] {
        const auto at = std::ranges::lower_bound(row, sample.row) - row.begin();
        const int32_t play = all.play_duration[at];
        const double most = label_clip * all.video_duration[at];
        return label_clip > 0 && play > most ? static_cast<int32_t>(most) : play;
      }());
  }
  return played;
}

/// Of each video: of its first training row, else the median of those. Shapes: first [items], of all ranks.
std::vector<double> durations_of(std::span<const uint64_t> first) {
  std::vector<double> durations;
  for (const uint64_t of_item : first)
    durations.push_back(of_item == kNoDuration ? std::numeric_limits<double>::quiet_NaN()
                                               : static_cast<double>(of_item & 0xffffffffu));
  fill_missing(durations, known_median(durations));
  // Nothing is divided by 0.
  for (double& duration : durations) duration = std::max(duration, 1.);
  return durations;
}

/// The play times of all ranks' rows, in groups.
class Groups {
 public:
  /// Shapes: group_of [items]. Collective: all ranks.
  Groups(int64_t groups, std::span<const int64_t> group_of, const Played& played,
         std::span<const ShardSamples> samples, Communicator& comm, ThreadPool& pool)
      : comm_(comm), own_(groups) {
    for (size_t j = 0; j < samples.size(); ++j)
      for (size_t k = 0; k < played[j].size(); ++k)
        own_[group_of[samples[j].train[k].item]].push_back(played[j][k]);
    pool.parallel_for(groups, [&](int64_t g, int) { std::ranges::sort(own_[g]); });
    for (const std::vector<int32_t>& group : own_) rows_.push_back(std::ssize(group));
    comm.all_reduce(std::span(rows_), Reduction::kSum);
  }

  int64_t rows(int64_t group) const { return rows_[group]; }

  /// Of a group, linear between two rows; nothing for one without rows. Shapes: result [groups][shares]. Collective: all
  /// ranks.
  std::vector<std::vector<double>> quantiles(std::span<const double> shares) const {
    std::vector<Place> places;
    for (int64_t g = 0; g < std::ssize(rows_); ++g)
      for (const double share : shares) {
        if (rows_[g] == 0) continue;
        const int64_t below = quantile_place(rows_[g], share).below;
        places.push_back({g, below});
        places.push_back({g, std::min(below + 1, rows_[g] - 1)});
      }
    const std::vector<int64_t> at = values_at(places);
    std::vector<std::vector<double>> quantiles(rows_.size());
    auto next = at.begin();
    for (size_t g = 0; g < rows_.size(); ++g)
      for (const double share : shares) {
        if (rows_[g] == 0) continue;
        const auto low = static_cast<double>(*next++), high = static_cast<double>(*next++);
        quantiles[g].push_back(quantile_place(rows_[g], share).between(low, high));
      }
    return quantiles;
  }

  /// Rows of the first group above each value. Collective: all ranks.
  std::vector<int64_t> rows_above(std::span<const double> values) const {
    std::vector<int64_t> rows;
    for (const double value : values)
      rows.push_back(own_[0].end() - std::upper_bound(own_[0].begin(), own_[0].end(), value));
    comm_.all_reduce(std::span(rows), Reduction::kSum);
    return rows;
  }

 private:
  struct Place {
    int64_t group, place;
  };

  /// What stands at places in ascending order: the least values that more rows are not above, by bisection.
  std::vector<int64_t> values_at(std::span<const Place> places) const {
    std::vector<int64_t> value(places.size(), 0), rows(places.size());
    for (int bit = 30; bit >= 0; --bit) {
      for (size_t k = 0; k < places.size(); ++k) {
        const std::vector<int32_t>& of = own_[places[k].group];
        rows[k] = std::ranges::lower_bound(of, value[k] + (int64_t{1} << bit)) - of.begin();
      }
      comm_.all_reduce(std::span(rows), Reduction::kSum);
      for (size_t k = 0; k < places.size(); ++k)
        if (rows[k] <= places[k].place) value[k] += int64_t{1} << bit;
    }
    return value;
  }

  Communicator& comm_;
  std::vector<std::vector<int32_t>> own_;  // of this rank, ascending
  std::vector<int64_t> rows_;              // of all ranks
};

/// The range of each video: as many of `ranges` as the share of training rows whose video is shorter.
std::vector<int64_t> ranges_of(int64_t ranges, std::span<const double> duration,
                               std::span<const int64_t> rows) {
  std::map<double, int64_t> by_duration;
  int64_t all = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    by_duration[duration[i]] += rows[i];
    all += rows[i];
  }
  std::map<double, int64_t> range;
  int64_t shorter = 0;
  for (const auto& [of, count] : by_duration) {
    range[of] = std::min(ranges * shorter / std::max<int64_t>(all, 1), ranges - 1);
    shorter += count;
  }
  std::vector<int64_t> result;
  for (const double of : duration) result.push_back(range[of]);
  return result;
}

/// Training rows of each video. Collective: all ranks.
std::vector<int64_t> rows_of_items(std::span<const ShardSamples> samples, int64_t items,
                                   Communicator& comm) {
  std::vector<int64_t> rows(items, 0);
  for (const ShardSamples& shard : samples)
    for (const Sample& sample : shard.train) ++rows[sample.item];
  comm.all_reduce(std::span(rows), Reduction::kSum);
  return rows;
}

/// Seconds. Shapes: ranges, duration [items]; result as of `DurationQuantiles`. Collective: all ranks.
std::vector<float> quantile_table(const WatchTimeFit& fit, const Groups& groups,
                                  std::span<const int64_t> range, std::span<const double> duration,
                                  std::span<const int64_t> rows) {
  std::vector<double> shares, least(fit.ranges, std::numeric_limits<double>::infinity());
  for (int64_t k = 0; k <= fit.steps; ++k)
    shares.push_back(static_cast<double>(k) / static_cast<double>(fit.steps));
  for (size_t i = 0; i < rows.size(); ++i)
    if (rows[i] > 0) least[range[i]] = std::min(least[range[i]], duration[i]);
  const std::vector<std::vector<double>> quantiles = groups.quantiles(shares);
  std::vector<float> table;
  const int64_t width = 1 + std::ssize(shares);
  for (int64_t r = 0; r < fit.ranges; ++r) {
    if (quantiles[r].empty()) {  // as the one before: durations are equal in many rows
      for (int64_t c = 0; c < width; ++c)
        table.push_back(r == 0 ? 0 : table[table.size() - static_cast<size_t>(width)]);
      continue;
    }
    table.push_back(static_cast<float>(least[r]));
    for (const double of : quantiles[r]) table.push_back(static_cast<float>(of / kSecond));
  }
  return table;
}

/// The levels' shares of rows: (1 - e^-az) / (1 - e^-a) of z in equal steps.
std::vector<double> level_shares(double a, int64_t levels) {
  std::vector<double> shares;
  for (int64_t m = 1; m <= levels; ++m)
    shares.push_back(math::expm1(-a * static_cast<double>(m) / static_cast<double>(levels)) /
                     math::expm1(-a));
  shares.back() = 1;
  return shares;
}

/// Of levels at these shares: how far off the play time is for errors of the chances, and for what lies between levels.
/// Source: CREAD, AAAI 2024, section on discretisation.
double level_error(std::span<const double> shares, std::span<const double> level) {
  double squares = 0, of_chances = 0, of_widths = 0;
  for (size_t m = 0; m < shares.size(); ++m) {
    const double p = shares[m] - (m == 0 ? 0 : shares[m - 1]);
    const double width = level[m] - (m == 0 ? 0 : level[m - 1]);
    squares += p * p;
    of_chances += width * width / p;
    of_widths += width * width;
  }
  constexpr double kOfWidths = 50;
  return squares * of_chances + kOfWidths * squares * of_widths;
}

/// The levels with the least such error, and log odds of training rows. Shapes: result [2, levels]. Collective: all ranks.
std::vector<float> find_levels(int64_t levels, const Groups& all, double unit) {
  constexpr int64_t kTried = 50;
  std::vector<double> shares;
  for (int64_t k = 0; k < kTried; ++k) {
    const std::vector<double> some = level_shares(.001 + .1 * static_cast<double>(k), levels);
    shares.insert(shares.end(), some.begin(), some.end());
  }
  const std::vector<double> values = all.quantiles(shares)[0];
  int64_t best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (int64_t k = 0; k < kTried; ++k) {
    const double error = level_error(std::span(shares).subspan(k * levels, levels),
                                     std::span(values).subspan(k * levels, levels));
    if (error < least) {
      least = error;
      best = k;
    }
  }
  const std::span level = std::span(values).subspan(best * levels, levels);
  std::vector<float> result;
  for (const double of : level) result.push_back(static_cast<float>(of / unit));
  for (const int64_t above : all.rows_above(level))
    result.push_back(static_cast<float>(math::log(
        (static_cast<double>(above) + .5) / (static_cast<double>(all.rows(0) - above) + .5))));
  return result;
}

/// Milliseconds, of all ranks' rows; a second where nothing was played. Collective: all ranks.
double mean_played(const Played& played, Communicator& comm) {
  int64_t sums[] = {0, 0};
  for (const std::vector<int32_t>& of_shard : played) {
    for (const int32_t ms : of_shard) sums[0] += ms;
    sums[1] += std::ssize(of_shard);
  }
  comm.all_reduce(std::span<int64_t>(sums), Reduction::kSum);
  return sums[0] > 0 ? static_cast<double>(sums[0]) / static_cast<double>(sums[1]) : kSecond;
}

}  // namespace

std::vector<ArraySpec> play_time_arrays(const System& system, const Dataset& dataset) {
  const auto kept = [](const char* name, int64_t rows, int64_t cols) {
    return ArraySpec{name, ArrayKind::kColumns, rows, cols, false};
  };
  const WatchTimeFit& fit = *system.watch_time;
  std::vector<ArraySpec> specs = {kept(kDuration, dataset.items(), 1), kept(kUnit, 1, 1)};
  if (fit.ranges > 0) specs.push_back(kept(kQuantiles, fit.ranges, 2 + fit.steps));
  if (fit.levels) specs.push_back(kept(kLevels, 2, system.objective.outputs));
  return specs;
}

FittedPlayTimes fit_play_times(const System& system, const Dataset& dataset,
                               std::span<const ShardSamples> samples, double label_clip,
                               MpiCommunicator& comm, ThreadPool& pool) {
  const WatchTimeFit& fit = *system.watch_time;
  const int64_t first_shard = shards_of_rank(dataset.shards(), comm.world()).begin;
  std::vector<uint64_t> first;
  Played played;
  agree(comm, [&] {
    first = first_durations(dataset, samples, first_shard);
    played = read_played(dataset, samples, first_shard, label_clip);
  });
  comm.all_reduce(std::span(first), Reduction::kMin);
  const std::vector<double> duration = durations_of(first);
  const bool shares = system.objective.target == TargetKind::kPlayShare;
  const double unit = shares ? kSecond : mean_played(played, comm);

  FittedPlayTimes fitted;
  std::vector<std::vector<float>> values = {{duration.begin(), duration.end()},
                                            {static_cast<float>(unit)}};
  if (fit.ranges > 0) {
    const std::vector<int64_t> rows = rows_of_items(samples, dataset.items(), comm);
    const std::vector<int64_t> range = ranges_of(fit.ranges, duration, rows);
    const Groups groups(fit.ranges, range, played, samples, comm, pool);
    values.push_back(quantile_table(fit, groups, range, duration, rows));
  }
  if (fit.levels) {
    const std::vector<int64_t> one_group(dataset.items(), 0);
    const Groups all(1, one_group, played, samples, comm, pool);
    values.push_back(find_levels(system.objective.outputs, all, unit));
  }
  const std::vector<ArraySpec> specs = play_time_arrays(system, dataset);
  for (size_t a = 0; a < specs.size(); ++a)
    fitted.arrays.push_back({specs[a], std::move(values[a])});

  std::optional<DurationQuantiles> quantiles;
  if (shares) quantiles.emplace(fit.ranges, fitted.arrays[2].values);
  fitted.targets.resize(samples.size());
  pool.parallel_for(std::ssize(samples), [&](int64_t j, int) {
    for (size_t k = 0; k < played[j].size(); ++k) {
      const double time = played[j][k] / unit;
      fitted.targets[j].push_back(static_cast<float>(
          shares ? quantiles->share_of(time, duration[samples[j].train[k].item]) : time));
    }
  });
  return fitted;
}

PlayTimes::PlayTimes(const System& system, std::span<const FittedArray> arrays)
    : objective_(system.objective) {
  for (const FittedArray& array : arrays) {
    if (array.spec.name == kDuration) duration_ = array.values;
    if (array.spec.name == kUnit) unit_ = static_cast<double>(array.values[0]);
    if (array.spec.name == kQuantiles) quantiles_.emplace(array.spec.rows, array.values);
    if (array.spec.name == kLevels)
      std::ranges::copy(array.values, system.watch_time->levels->begin());
  }
}

void PlayTimes::make_scores(std::span<const float> outputs, std::span<const int32_t> items,
                            std::span<float> scores) const {
  const int64_t width = objective_.outputs;
  std::vector<double> of_row(width);
  for (size_t k = 0; k < items.size(); ++k) {
    std::copy_n(outputs.begin() + static_cast<int64_t>(k) * width, width, of_row.begin());
    const auto duration = static_cast<double>(duration_[items[k]]);
    double time = decoded(objective_, of_row.data());
    if (quantiles_) time = quantiles_->play_time_of(time, duration);
    scores[k] = static_cast<float>(time * unit_ / duration);
  }
}

}  // namespace kt
