#include "trainer/features/label_columns.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "launch/base/errors.h"

namespace kt {
namespace {

/// Groups numbered by code, ascending; a code that an item has twice is one group.
ItemGroups numbered(const CodeLists& lists) {
  std::vector<int32_t> codes = lists.code;
  std::ranges::sort(codes);
  codes.erase(std::ranges::unique(codes).begin(), codes.end());
  const int64_t items = std::ssize(lists.offsets) - 1;
  ItemGroups groups{.groups = std::max<int64_t>(1, std::ssize(codes))};  // never of no size
  for (int64_t i = 0; i < items; ++i)
    groups.width = std::max(groups.width, lists.offsets[i + 1] - lists.offsets[i]);
  groups.group.assign(items * groups.width, -1);
  for (int64_t i = 0; i < items; ++i) {
    const auto begin = groups.group.begin() + i * groups.width;
    auto end = begin;
    for (int64_t k = lists.offsets[i]; k < lists.offsets[i + 1]; ++k) {
      const auto group =
          static_cast<int32_t>(std::ranges::lower_bound(codes, lists.code[k]) - codes.begin());
      if (std::find(begin, end, group) == end) *end++ = group;
    }
  }
  return groups;
}

}  // namespace

bool is_by_user(LabelKey key) {
  return key == LabelKey::kUser || key == LabelKey::kUserTag || key == LabelKey::kUserCategory;
}

ItemGroups item_groups(LabelKey key, const Dataset& dataset) {
  const int64_t items = dataset.items();
  switch (key) {
    case LabelKey::kGlobal:
    case LabelKey::kUser:
      return {.groups = 1, .width = 1, .group = std::vector<int32_t>(items, 0)};
    case LabelKey::kItem: {
      ItemGroups groups{.groups = items, .width = 1, .group = std::vector<int32_t>(items)};
      std::iota(groups.group.begin(), groups.group.end(), 0);
      return groups;
    }
    case LabelKey::kTag:
    case LabelKey::kUserTag:
      return numbered(dataset.read_tags());
    default:
      return numbered(dataset.read_categories("first_level_category_id"));
  }
}

/// How many rows, and their sum in units.
struct TrainingLabels::Total {
  int64_t rows = 0;
  int64_t units = 0;
  friend Total operator-(Total a, Total b) { return {a.rows - b.rows, a.units - b.units}; }
};

/// Totals of cells, in each view.
class TrainingLabels::Totals {
 public:
  explicit Totals(int64_t cells) : numbers_(cells * kStride, 0) {}
  void add(int64_t cell, int64_t view, int64_t units) {
    int64_t* total = numbers_.data() + cell * kStride + 2 * view;
    total[0] += 1;
    total[1] += units;
  }
  /// What rows were added to: all of them to the first view, and to each other one those that it does not see.
  void turn_round() {
    for (size_t first = 0; first < numbers_.size(); first += kStride)
      for (size_t k = 2; k < kStride; ++k)
        numbers_[first + k] = numbers_[first + k % 2] - numbers_[first + k];
  }
  void add(const Totals& other) {
    for (size_t k = 0; k < numbers_.size(); ++k) numbers_[k] += other.numbers_[k];
  }
  Total at(int64_t cell, int64_t view) const {
    const int64_t* total = numbers_.data() + cell * kStride + 2 * view;
    return {total[0], total[1]};
  }
  std::span<int64_t> numbers() { return numbers_; }

 private:
  static constexpr size_t kStride = 2 * kViews;
  std::vector<int64_t> numbers_;
};

TrainingLabels::TrainingLabels(std::span<const ShardSamples> samples, double clip, uint64_t seed,
                               Communicator& comm, ThreadPool& pool)
    : samples_(samples), clip_(clip), seed_(seed), comm_(comm), pool_(pool), first_user_{0} {
  int64_t rows = 0;
  double largest = 0;
  for (const ShardSamples& shard : samples) {
    first_user_.push_back(first_user_.back() + std::ssize(shard.users));
    rows += std::ssize(shard.train);
    for (const Sample& sample : shard.train)
      largest = std::max(largest, std::abs(static_cast<double>(sample.label)));
  }
  comm.all_reduce(std::span(&rows, 1), Reduction::kSum);
  comm.all_reduce(std::span(&largest, 1), Reduction::kMax);
  std::frexp(largest, &exponent_);
  bits_of_rows_ = static_cast<int>(std::bit_width(static_cast<uint64_t>(rows)));
  means_ = means_of_all(measure_of({}, 0));
}

double TrainingLabels::units_below(int exponent) const {
  return std::ldexp(1., 62 - exponent - bits_of_rows_);
}

TrainingLabels::Measure TrainingLabels::measure_of(const LabelMean& mean, int64_t items) const {
  Measure measure{.units = units_below(exponent_), .of_item = {}, .of_user = {}};
  if (mean.of == LabelOf::kLabel) return measure;
  measure.of_item = means_of(measure, mean.weight, items, false,
                             [](int64_t, const Sample& sample) { return int64_t{sample.item}; });
  measure.units = units_below(exponent_ + 1);  // a label less a mean of labels
  if (mean.of == LabelOf::kResidual && mean.key == LabelKey::kUser) return measure;
  measure.of_user = means_of(measure, mean.weight, first_user_.back(), true,
                             [&](int64_t j, const Sample& sample) { return user_row(j, sample); });
  measure.of = mean.of;
  measure.units = units_below(mean.of == LabelOf::kResidual ? exponent_ + 2 : 2 * (exponent_ + 2));
  return measure;
}

int64_t TrainingLabels::units_of(const Measure& measure, int64_t view, int64_t shard,
                                 const Sample& sample) const {
  double x = clip_ > 0 ? std::min<double>(sample.label, clip_) : sample.label;
  if (!measure.of_item.empty()) x -= measure.of_item[view][sample.item];
  if (!measure.of_user.empty()) x -= measure.of_user[view][user_row(shard, sample)];
  if (measure.of == LabelOf::kSquaredResidual) x *= x;
  return std::llround(x * measure.units);
}

LabelSum TrainingLabels::sum_of(const Measure& measure, Total total) const {
  return {total.rows, static_cast<double>(total.units) / measure.units};
}

std::vector<double> TrainingLabels::means_of_all(const Measure& measure) const {
  const Totals found =
      totals(measure, 1, false, [](int64_t, const Sample&, auto&& visit) { visit(0); });
  std::vector<double> means;
  for (int64_t view = 0; view < kViews; ++view)
    means.push_back(shrunk_mean(sum_of(measure, found.at(0, view)), 0, 0, 0));
  return means;
}

template <class Cell>
TrainingLabels::Views TrainingLabels::means_of(const Measure& measure, double weight, int64_t cells,
                                               bool of_shard, Cell cell) const {
  const std::vector<double> priors = means_of_all(measure);
  const Totals found =
      totals(measure, cells, of_shard,
             [&](int64_t j, const Sample& sample, auto&& visit) { visit(cell(j, sample)); });
  Views means(kViews);
  for (int64_t view = 0; view < kViews; ++view)
    for (int64_t c = 0; c < cells; ++c)
      means[view].push_back(
          shrunk_mean(sum_of(measure, found.at(c, view)), weight, priors[view], priors[view]));
  return means;
}

int64_t TrainingLabels::fold(int64_t shard, const Sample& sample) const {
  return label_fold(seed_, samples_[shard].users[sample.user], sample.item);
}

int64_t TrainingLabels::user_row(int64_t shard, const Sample& sample) const {
  return first_user_[shard] + sample.user;
}

template <class ForCells>
TrainingLabels::Totals TrainingLabels::totals(const Measure& measure, int64_t cells, bool of_shard,
                                              ForCells for_cells) const {
  std::vector<Totals> of_thread(of_shard ? 1 : pool_.threads(), Totals(cells));
  const bool the_same_in_all = measure.of_item.empty();  // two sums do then, not all
  pool_.parallel_for(std::ssize(samples_), [&](int64_t j, int thread) {
    Totals& into = of_thread[of_shard ? 0 : thread];
    for (const Sample& sample : samples_[j].train) {
      const int64_t unseen_in = view_of(fold(j, sample));
      const auto add = [&](int64_t view) {
        const int64_t units = units_of(measure, view, j, sample);
        for_cells(j, sample, [&](int64_t cell) { into.add(cell, view, units); });
      };
      if (the_same_in_all) {
        add(0);
        add(unseen_in);
        continue;
      }
      for (int64_t view = 0; view < kViews; ++view)
        if (view != unseen_in) add(view);
    }
  });
  for (size_t t = 1; t < of_thread.size(); ++t) of_thread[0].add(of_thread[t]);
  if (the_same_in_all) of_thread[0].turn_round();
  if (!of_shard) comm_.all_reduce(of_thread[0].numbers(), Reduction::kSum);
  return std::move(of_thread[0]);
}

FittedMean TrainingLabels::fit(const LabelMean& mean, const ItemGroups& groups, int64_t column,
                               int64_t width, std::span<std::vector<float>> rows) const {
  KT_CHECK(rows.size() == samples_.size());
  KT_CHECK(mean.of == LabelOf::kLabel || mean.rule == LeakageRule::kKFold);
  const bool by_user = is_by_user(mean.key);
  const auto cell_of = [&](int64_t shard, const Sample& sample, int64_t group) {
    return by_user ? user_row(shard, sample) * groups.groups + group : group;
  };
  const int64_t cells = (by_user ? first_user_.back() : 1) * groups.groups;
  const Measure measure = measure_of(mean, groups.items());
  const std::vector<double> priors = mean.of == LabelOf::kLabel ? means_ : means_of_all(measure);
  const Totals found =
      totals(measure, cells, by_user, [&](int64_t j, const Sample& sample, auto&& visit) {
        for (const int32_t group : groups.of(sample.item))
          if (group >= 0) visit(cell_of(j, sample, group));
      });

  const auto shrunk = [&](Total total, double prior) {
    return static_cast<float>(
        shrunk_mean(sum_of(measure, total), mean.weight, prior, mean.unseen.value_or(prior)));
  };
  pool_.parallel_for(std::ssize(samples_), [&](int64_t j, int) {
    float* out = rows[j].data() + column;
    for (const Sample& sample : samples_[j].train) {
      const int64_t view = mean.rule == LeakageRule::kKFold ? view_of(fold(j, sample)) : 0;
      const auto seen = [&](int64_t group) {
        const Total total = found.at(cell_of(j, sample, group), view);
        return mean.rule == LeakageRule::kLeaveOneOut
                   ? total - Total{1, units_of(measure, view, j, sample)}
                   : total;
      };
      *out = average(groups.of(sample.item), shrunk({}, priors[view]),
                     [&](int64_t group) { return shrunk(seen(group), priors[view]); });
      out += width;
    }
  });

  FittedMean fitted{.values = {}, .unseen = shrunk({}, priors[0])};
  for (int64_t cell = 0; cell < cells; ++cell)
    fitted.values.push_back(shrunk(found.at(cell, 0), priors[0]));
  if (by_user) return fitted;
  std::vector<float> by_item;
  for (int64_t item = 0; item < groups.items(); ++item)
    by_item.push_back(average(groups.of(item), fitted.unseen,
                              [&](int64_t group) { return fitted.values[group]; }));
  fitted.values = std::move(by_item);
  return fitted;
}

}  // namespace kt
