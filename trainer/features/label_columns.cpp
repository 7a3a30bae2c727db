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

/// How many labels, and their sum in units.
struct TrainingLabels::Total {
  int64_t rows = 0;
  int64_t units = 0;
  friend Total operator-(Total a, Total b) { return {a.rows - b.rows, a.units - b.units}; }
};

/// Totals of cells: of all rows, and of those of each fold.
class TrainingLabels::Totals {
 public:
  explicit Totals(int64_t cells) : numbers_(cells * kStride, 0) {}
  void add(int64_t cell, int64_t fold, int64_t units) {
    for (const int64_t slot : {int64_t{0}, 1 + fold}) {
      int64_t* total = numbers_.data() + cell * kStride + 2 * slot;
      total[0] += 1;
      total[1] += units;
    }
  }
  void add(const Totals& other) {
    for (size_t k = 0; k < numbers_.size(); ++k) numbers_[k] += other.numbers_[k];
  }
  Total all(int64_t cell) const { return at(cell, 0); }
  Total other_folds(int64_t cell, int64_t fold) const { return all(cell) - at(cell, 1 + fold); }
  std::span<int64_t> numbers() { return numbers_; }

 private:
  static constexpr int64_t kStride = 2 * (1 + kLabelFolds);
  Total at(int64_t cell, int64_t slot) const {
    const int64_t* total = numbers_.data() + cell * kStride + 2 * slot;
    return {total[0], total[1]};
  }
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
  // The finest unit in which the sum of all labels is sure to fit.
  int exponent = 0;
  std::frexp(largest, &exponent);
  const int bits_of_rows = static_cast<int>(std::bit_width(static_cast<uint64_t>(rows)));
  units_per_label_ = std::ldexp(1., 62 - exponent - bits_of_rows);

  Totals global = totals(1, false, [](int64_t, const Sample&, auto&& visit) { visit(0); });
  comm.all_reduce(global.numbers(), Reduction::kSum);
  prior_ = mean_of(global.all(0));
  for (int64_t f = 0; f < kLabelFolds; ++f) prior_of_fold_[f] = mean_of(global.other_folds(0, f));
}

int64_t TrainingLabels::units(float label) const {
  const double cut = clip_ > 0 ? std::min<double>(label, clip_) : label;
  return std::llround(cut * units_per_label_);
}

double TrainingLabels::mean_of(Total total) const { return shrunk_mean(labels(total), 0, 0, 0); }

LabelSum TrainingLabels::labels(Total total) const {
  return {total.rows, static_cast<double>(total.units) / units_per_label_};
}

int64_t TrainingLabels::fold(int64_t shard, const Sample& sample) const {
  return label_fold(seed_, samples_[shard].users[sample.user], sample.item);
}

int64_t TrainingLabels::user_row(int64_t shard, const Sample& sample) const {
  return first_user_[shard] + sample.user;
}

template <class ForCells>
TrainingLabels::Totals TrainingLabels::totals(int64_t cells, bool of_shard,
                                              ForCells for_cells) const {
  std::vector<Totals> of_thread(of_shard ? 1 : pool_.threads(), Totals(cells));
  pool_.parallel_for(std::ssize(samples_), [&](int64_t j, int thread) {
    Totals& into = of_thread[of_shard ? 0 : thread];
    for (const Sample& sample : samples_[j].train)
      for_cells(j, sample,
                [&](int64_t cell) { into.add(cell, fold(j, sample), units(sample.label)); });
  });
  for (size_t t = 1; t < of_thread.size(); ++t) of_thread[0].add(of_thread[t]);
  return std::move(of_thread[0]);
}

FittedMean TrainingLabels::fit(const LabelMean& mean, const ItemGroups& groups, int64_t column,
                               int64_t width, std::span<std::vector<float>> rows) const {
  KT_CHECK(rows.size() == samples_.size());
  const bool by_user = is_by_user(mean.key);
  const auto cell_of = [&](int64_t shard, const Sample& sample, int64_t group) {
    return by_user ? user_row(shard, sample) * groups.groups + group : group;
  };
  const int64_t cells = (by_user ? first_user_.back() : 1) * groups.groups;
  Totals found = totals(cells, by_user, [&](int64_t j, const Sample& sample, auto&& visit) {
    for (const int32_t group : groups.of(sample.item))
      if (group >= 0) visit(cell_of(j, sample, group));
  });
  if (!by_user) comm_.all_reduce(found.numbers(), Reduction::kSum);

  const auto shrunk = [&](Total total, double prior) {
    return static_cast<float>(
        shrunk_mean(labels(total), mean.weight, prior, mean.unseen.value_or(prior)));
  };
  pool_.parallel_for(std::ssize(samples_), [&](int64_t j, int) {
    float* out = rows[j].data() + column;
    for (const Sample& sample : samples_[j].train) {
      const int64_t f = fold(j, sample);
      const double prior = mean.rule == LeakageRule::kKFold ? prior_of_fold_[f] : prior_;
      const auto seen = [&](int64_t group) {
        const int64_t cell = cell_of(j, sample, group);
        switch (mean.rule) {
          case LeakageRule::kLeaveOneOut:
            return found.all(cell) - Total{1, units(sample.label)};
          case LeakageRule::kKFold:
            return found.other_folds(cell, f);
          default:
            return found.all(cell);
        }
      };
      *out = average(groups.of(sample.item), shrunk({}, prior),
                     [&](int64_t group) { return shrunk(seen(group), prior); });
      out += width;
    }
  });

  FittedMean fitted{.values = {}, .unseen = shrunk({}, prior_)};
  for (int64_t cell = 0; cell < cells; ++cell)
    fitted.values.push_back(shrunk(found.all(cell), prior_));
  if (by_user) return fitted;
  std::vector<float> by_item;
  for (int64_t item = 0; item < groups.items(); ++item)
    by_item.push_back(average(groups.of(item), fitted.unseen,
                              [&](int64_t group) { return fitted.values[group]; }));
  fitted.values = std::move(by_item);
  return fitted;
}

}  // namespace kt
