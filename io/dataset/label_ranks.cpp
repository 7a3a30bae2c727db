#include "io/dataset/label_ranks.h"

#include <algorithm>
#include <limits>

#include "launch/base/errors.h"
#include "launch/base/order_keys.h"

namespace kt {

namespace {

/// Of labels, each of which is ranked in the cache.
constexpr size_t kRanges = 256;

/// The lowest label of each range but the first, of ranges that hold about as many labels each.
std::vector<double> ends_of_ranges(std::span<const double> label) {
  std::vector<double> sample;
  for (size_t i = 0; i < label.size(); i += label.size() / (32 * kRanges) + 1)
    sample.push_back(label[i]);
  std::ranges::sort(sample);
  std::vector<double> ends;
  for (size_t r = 1; r < kRanges && !sample.empty(); ++r)
    ends.push_back(sample[sample.size() * r / kRanges]);
  return ends;
}

}  // namespace

LabelRanks rank_labels(std::span<const int64_t> offsets, std::span<const double> label,
                       ThreadPool& pool) {
  KT_CHECK(label.size() <= std::numeric_limits<uint32_t>::max());
  const size_t users = offsets.size() - 1;
  const std::vector<double> ends = ends_of_ranges(label);
  LabelRanks ranks{.by_label = std::vector<uint32_t>(label.size()),
                   .rank = std::vector<uint32_t>(label.size())};
  struct Buffers {
    ValueOrder order;
    std::vector<EqualRun> runs;
    std::vector<double> labels;
    std::vector<uint32_t> places;
  };
  std::vector<Buffers> buffers(static_cast<size_t>(pool.threads()));
  // Where each range of labels begins among those of a user, then among all.
  std::vector<uint32_t> begin(users * (kRanges + 1));
  pool.parallel_for(static_cast<int64_t>(users), [&](int64_t user, int thread) {
    Buffers& own = buffers[static_cast<size_t>(thread)];
    const auto u = static_cast<size_t>(user), first = static_cast<size_t>(offsets[u]);
    const auto labels = label.subspan(first, static_cast<size_t>(offsets[u + 1]) - first);
    const auto places = std::span(ranks.by_label).subspan(first, labels.size());
    own.order.sort(labels, places, own.runs);
    uint32_t* const begin_of = begin.data() + u * (kRanges + 1);
    uint32_t i = 0;
    for (size_t r = 0; r < ends.size(); ++r) {
      while (i < places.size() && labels[places[i]] < ends[r]) ++i;
      begin_of[r + 1] = i;
    }
    begin_of[kRanges] = static_cast<uint32_t>(places.size());
  });
  std::vector<uint32_t> lower(kRanges + 1, 0);  // labels below each range
  for (size_t u = 0; u < users; ++u)
    for (size_t r = 0; r < kRanges; ++r)
      lower[r + 1] += begin[u * (kRanges + 1) + r + 1] - begin[u * (kRanges + 1) + r];
  for (size_t r = 0; r < kRanges; ++r) lower[r + 1] += lower[r];
  pool.parallel_for(static_cast<int64_t>(kRanges), [&](int64_t range, int thread) {
    Buffers& own = buffers[static_cast<size_t>(thread)];
    const auto r = static_cast<size_t>(range);
    const auto for_each_pair = [&](auto&& visit) {  // by user, and by label inside a user
      for (size_t u = 0; u < users; ++u) {
        const uint32_t* const begin_of = begin.data() + u * (kRanges + 1);
        for (size_t i = begin_of[r]; i < begin_of[r + 1]; ++i)
          visit(static_cast<size_t>(offsets[u]), static_cast<size_t>(offsets[u]) + i);
      }
    };
    own.labels.clear();
    for_each_pair(
        [&](size_t first, size_t at) { own.labels.push_back(label[first + ranks.by_label[at]]); });
    own.places.resize(own.labels.size());
    own.order.sort(own.labels, own.places, own.runs);
    std::vector<uint32_t> rank(own.labels.size());
    for (uint32_t i = 0; i < rank.size(); ++i) rank[own.places[i]] = lower[r] + i;
    for (const EqualRun& run : own.runs)
      for (uint32_t i = run.begin; i < run.end; ++i) rank[own.places[i]] = lower[r] + run.begin;
    auto next = rank.begin();
    for_each_pair([&](size_t, size_t at) { ranks.rank[at] = *next++; });
  });
  return ranks;
}

}  // namespace kt
