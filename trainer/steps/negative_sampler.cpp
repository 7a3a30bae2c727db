#include "trainer/steps/negative_sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "launch/base/errors.h"
#include "launch/base/math.h"
#include "launch/base/random.h"
#include "models/graph/group_loss.h"
#include "sharding/schedule.h"

namespace kt {
namespace {

/// Uniform in [0, n).
int64_t below(uint64_t bits, int64_t n) {
  return std::min(static_cast<int64_t>(to_uniform(bits) * static_cast<double>(n)), n - 1);
}

/// count^.75 in thousandths, by correctly rounded operations alone.
int64_t weight_of_count(int64_t count) {
  const double root = std::sqrt(static_cast<double>(count));
  return std::llround(1000 * root * std::sqrt(root));
}

void sort_distinct(std::vector<int32_t>& items) {
  std::ranges::sort(items);
  items.erase(std::ranges::unique(items).begin(), items.end());
}

}  // namespace

NegativeSampler::NegativeSampler(const Objective& objective, std::span<const ShardSamples> samples,
                                 int64_t items, uint64_t seed, Communicator& comm, ThreadPool& pool,
                                 const ExcludedBlock& excluded)
    : objective_(objective), seed_(seed), lists_(samples.size()) {
  find_weights(samples, items, comm);
  pool.parallel_for(std::ssize(samples), [&](int64_t shard, int) {
    lists_[shard] = lists_of(samples[shard], excluded);
  });
}

void NegativeSampler::find_weights(std::span<const ShardSamples> samples, int64_t items,
                                   Communicator& comm) {
  std::vector<int64_t> weights(items, 1);
  if (objective_.negatives == NegativeKind::kPopularity) {
    std::ranges::fill(weights, 0);
    for (const ShardSamples& shard : samples)
      for (const Sample& sample : shard.train) weights[sample.item] += is_positive(sample);
    comm.all_reduce(std::span(weights), Reduction::kSum);
    for (int64_t& weight : weights) weight = weight_of_count(weight);
  }
  weight_before_.resize(items + 1);
  std::inclusive_scan(weights.begin(), weights.end(), weight_before_.begin() + 1);
}

NegativeSampler::Lists NegativeSampler::lists_of(const ShardSamples& samples,
                                                 const ExcludedBlock& excluded) const {
  struct User {
    std::vector<int32_t> positives, shown;
    std::vector<float> targets;  // of those shown, as they come
    std::vector<uint32_t> rows;
  };
  std::vector<User> users(samples.users.size());
  const bool rows = objective_.negatives == NegativeKind::kRows;
  for (const Sample& sample : samples.train) {
    User& user = users[sample.user];
    if (is_positive(sample) && !rows) user.positives.push_back(sample.item);
    if (rows || objective_.negatives == NegativeKind::kShown) user.shown.push_back(sample.item);
    if (!rows) continue;
    user.targets.push_back(objective_.target_of(sample.label));
    user.rows.push_back(sample.row);
  }
  std::vector<int32_t> block;
  for (int32_t item = 0; item < std::ssize(excluded.items); ++item)
    if (excluded.items[item]) block.push_back(item);
  Lists lists{.begin = {0}, .item = {}, .before = {}, .target = {}, .row = {}};
  for (size_t k = 0; k < users.size(); ++k) {
    User& user = users[k];
    sort_distinct(user.positives);
    if (objective_.negatives == NegativeKind::kAll) {
      // Nothing is drawn.
    } else if (rows) {
      lists.item.insert(lists.item.end(), user.shown.begin(), user.shown.end());
      lists.target.insert(lists.target.end(), user.targets.begin(), user.targets.end());
      lists.row.insert(lists.row.end(), user.rows.begin(), user.rows.end());
    } else if (objective_.negatives == NegativeKind::kShown) {
      sort_distinct(user.shown);
      std::ranges::set_difference(user.shown, user.positives, std::back_inserter(lists.item));
    } else {
      if (!excluded.users.empty() && excluded.users[samples.users[k]]) {
        user.positives.insert(user.positives.end(), block.begin(), block.end());
        sort_distinct(user.positives);
      }
      int64_t skipped = 0;
      for (const int32_t item : user.positives) {
        lists.item.push_back(item);
        lists.before.push_back(weight_before_[item] - skipped);
        skipped += weight_before_[item + 1] - weight_before_[item];
      }
    }
    lists.begin.push_back(std::ssize(lists.item));
    user = {};
  }
  return lists;
}

int64_t NegativeSampler::weight_of_first(const Lists& lists, int64_t user, int64_t k) const {
  if (k == 0) return 0;
  const int64_t last = lists.begin[user] + k - 1;
  return weight_before_[lists.item[last] + 1] - lists.before[last];
}

int64_t NegativeSampler::drawable(const Lists& lists, int64_t user) const {
  const int64_t listed = lists.begin[user + 1] - lists.begin[user];
  switch (objective_.negatives) {
    case NegativeKind::kRows:
      return listed - 1;  // beside the row itself
    case NegativeKind::kShown:
      return listed;
    case NegativeKind::kAll:
      return 1;  // nothing is
    default:
      return weight_before_.back() - weight_of_first(lists, user, listed);
  }
}

bool NegativeSampler::trains(int64_t shard, const Sample& sample) const {
  return (objective_.negatives == NegativeKind::kRows || is_positive(sample)) &&
         drawable(lists_[shard], sample.user) > 0;
}

void NegativeSampler::draw(int64_t shard, const Sample& sample, int64_t epoch, int32_t* items,
                           float* targets) const {
  const Lists& lists = lists_[shard];
  const int64_t begin = lists.begin[sample.user], end = lists.begin[sample.user + 1];
  const int64_t all = drawable(lists, sample.user), count = group() - 1;
  const uint64_t key =
      random_bits(seed_, Purpose::kNegatives, static_cast<uint64_t>(epoch), sample.row);
  if (objective_.ranks_lists()) return draw_list(lists, sample, key, items, targets);
  items[0] = sample.item;
  targets[0] = 1;
  for (int64_t k = 1; k <= count; ++k) {
    const uint64_t bits = mix(key + static_cast<uint64_t>(k));
    int64_t weight = 1;
    if (objective_.negatives == NegativeKind::kRows) {
      const int64_t other = begin + below(bits, end - begin);
      const float gap = objective_.target_of(sample.label) - lists.target[other];
      items[k] = lists.item[other];
      targets[0] = std::abs(gap);
      if (gap < 0) std::swap(items[0], items[k]);
    } else if (objective_.negatives == NegativeKind::kShown) {
      items[k] = lists.item[begin + below(bits, all)];
    } else {
      const int64_t place = below(bits, all);
      const auto first = lists.before.begin() + begin, last = lists.before.begin() + end;
      const int64_t passed = std::upper_bound(first, last, place) - first;
      const auto found = std::ranges::upper_bound(
          weight_before_, place + weight_of_first(lists, sample.user, passed));
      items[k] = static_cast<int32_t>(found - weight_before_.begin() - 1);
      weight = *found - *(found - 1);
    }
    targets[k] = objective_.loss == Loss::kSoftmax
                     ? static_cast<float>(math::log(static_cast<double>(count * weight) /
                                                    static_cast<double>(all)))
                     : 0;
  }
}

/// The row itself, then others of its user, in an order drawn of all.
void NegativeSampler::draw_list(const Lists& lists, const Sample& sample, uint64_t key,
                                int32_t* items, float* targets) const {
  const int64_t begin = lists.begin[sample.user], rows = lists.begin[sample.user + 1] - begin;
  items[0] = sample.item;
  targets[0] = objective_.target_of(sample.label);
  int64_t listed = 1;
  const Permutation order(rows, key);
  for (int64_t k = 0; k < rows && listed < group(); ++k) {
    const int64_t place = begin + order(k);
    if (lists.row[place] == sample.row) continue;
    items[listed] = lists.item[place];
    targets[listed++] = lists.target[place];
  }
  for (int64_t k = listed; k < group(); ++k) {
    items[k] = items[k % listed];
    targets[k] = kNoRow;
  }
}

}  // namespace kt
