#include "io/dataset/duration_p80.h"

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <numeric>

namespace kt {

namespace {

/// A number of each duration, by open addressing: millions of durations are of few thousand values.
class NumberOf {
 public:
  struct Entry {
    int32_t duration = 0;
    uint32_t number = 0;  // 0: a free place
  };

  /// To be made one or more where it is 0.
  uint32_t& operator[](int32_t duration) {
    Entry* entry = &entries_[place_of(duration)];
    if (entry->number == 0) {
      if (8 * ++size_ > entries_.size()) {
        grow();
        entry = &entries_[place_of(duration)];
      }
      entry->duration = duration;
    }
    return entry->number;
  }
  uint32_t at(int32_t duration) const { return entries_[place_of(duration)].number; }
  std::span<const Entry> entries() const { return entries_; }

 private:
  size_t place_of(int32_t duration) const {
    size_t place = static_cast<uint32_t>(duration) * 0x9e3779b1u >> shift_;
    while (entries_[place].duration != duration && entries_[place].number > 0)
      place = (place + 1) & (entries_.size() - 1);
    return place;
  }
  void grow() {
    std::vector<Entry> old(2 * entries_.size());
    old.swap(entries_);
    --shift_;
    for (const Entry& entry : old)
      if (entry.number > 0) entries_[place_of(entry.duration)] = entry;
  }

  // Sparse, since most of a look-up's time would go into a second place that nobody could predict.
  int shift_ = 20;
  std::vector<Entry> entries_ = std::vector<Entry>(size_t{1} << (32 - shift_));
  size_t size_ = 0;
};

/// Bits of the number of a bin: some ranks of labels, one after the other.
constexpr int kBinBits = 12;

struct Candidate {
  size_t pair;
  uint32_t rank;
};

/// What a thread finds.
struct Found {
  NumberOf pairs;
  std::vector<uint32_t> counts;  // [kDurationBuckets, bins]
  std::array<std::vector<Candidate>, kDurationBuckets> candidates;
};

/// One more than the bucket of each duration.
NumberOf find_buckets(std::span<const Found> found) {
  std::map<int32_t, int64_t> counts;
  int64_t n = 0, shorter = 0;
  for (const Found& own : found)
    for (const auto& [duration, pairs] : own.pairs.entries()) {
      if (pairs > 0) counts[duration] += pairs;
      n += pairs;
    }
  NumberOf buckets;
  for (const auto& [duration, count] : counts) {
    buckets[duration] = static_cast<uint32_t>(1 + kDurationBuckets * shorter / n);
    shorter += count;
  }
  return buckets;
}

/// A label of a bucket, by the order of its labels.
struct Choice {
  int64_t bin = -1;  // that holds it; -1: the bucket is empty
  int64_t at = 0;    // of the labels in it
};

/// Shapes: counts [kDurationBuckets, bins].
std::array<Choice, kDurationBuckets> choose_percentiles(std::span<const int64_t> counts) {
  const size_t bins = counts.size() / kDurationBuckets;
  std::array<Choice, kDurationBuckets> choices;
  for (size_t b = 0; b < choices.size(); ++b) {
    const std::span<const int64_t> own = counts.subspan(b * bins, bins);
    const int64_t n = std::accumulate(own.begin(), own.end(), int64_t{0});
    if (n == 0) continue;
    size_t bin = 0;
    int64_t at = (n - 1) * 4 / 5;
    for (; at >= own[bin]; ++bin) at -= own[bin];
    choices[b] = {.bin = static_cast<int64_t>(bin), .at = at};
  }
  return choices;
}

/// The chosen label's rank among the candidates of its bucket.
uint32_t select(const Choice& choice, size_t bucket, std::span<const Found> found) {
  std::vector<uint32_t> ranks;
  for (const Found& own : found)
    for (const Candidate& candidate : own.candidates[bucket]) ranks.push_back(candidate.rank);
  if (ranks.empty()) return 0;
  const auto at = ranks.begin() + choice.at;
  std::ranges::nth_element(ranks, at);
  return *at;
}

}  // namespace

std::vector<uint8_t> mark_duration_p80(std::span<const int64_t> offsets,
                                       std::span<const int32_t> duration,
                                       std::span<const uint32_t> by_label,
                                       std::span<const uint32_t> label_rank, ThreadPool& pool) {
  const auto users = std::ssize(offsets) - 1;
  std::vector<Found> found(static_cast<size_t>(pool.threads()));
  const auto for_each_user = [&](auto&& work) {
    pool.parallel_for(users, [&](int64_t user, int thread) {
      const auto u = static_cast<size_t>(user), first = static_cast<size_t>(offsets[u]);
      work(first, static_cast<size_t>(offsets[u + 1]) - first, found[static_cast<size_t>(thread)]);
    });
  };
  for_each_user([&](size_t first, size_t n, Found& own) {
    for (const int32_t one : duration.subspan(first, n)) ++own.pairs[one];
  });
  const NumberOf buckets = find_buckets(found);

  const int shift = std::max(0, static_cast<int>(std::bit_width(duration.size())) - kBinBits);
  const size_t bins = (duration.size() >> shift) + 1;
  std::vector<uint8_t> marks(duration.size());  // at first the pairs' buckets
  for (Found& own : found) own.counts.assign(kDurationBuckets * bins, 0);
  for_each_user([&](size_t first, size_t n, Found& own) {
    uint8_t* const bucket_of = marks.data() + first;
    uint32_t* const counts = own.counts.data();
    for (size_t i = 0; i < n; ++i)
      bucket_of[i] = static_cast<uint8_t>(buckets.at(duration[first + i]) - 1);
    for (size_t i = first; i < first + n; ++i)
      ++counts[bucket_of[by_label[i]] * bins + (label_rank[i] >> shift)];
  });
  std::vector<int64_t> counts(kDurationBuckets * bins, 0);
  for (const Found& own : found)
    for (size_t i = 0; i < counts.size(); ++i) counts[i] += own.counts[i];

  // All but the labels of the chosen bins are on one side already.
  const std::array<Choice, kDurationBuckets> choices = choose_percentiles(counts);
  for_each_user([&](size_t first, size_t n, Found& own) {
    for (size_t i = first; i < first + n; ++i) {
      const size_t pair = first + by_label[i];
      const uint8_t b = marks[pair];
      const int64_t bin = label_rank[i] >> shift;
      marks[pair] = bin > choices[b].bin;
      if (bin == choices[b].bin) own.candidates[b].push_back({pair, label_rank[i]});
    }
  });
  for (size_t b = 0; b < choices.size(); ++b) {
    const uint32_t percentile = select(choices[b], b, found);
    for (const Found& own : found)
      for (const Candidate& candidate : own.candidates[b])
        marks[candidate.pair] = candidate.rank > percentile;
  }
  return marks;
}

}  // namespace kt
