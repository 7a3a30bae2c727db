#include "trainer/metrics/labels.h"

#include <algorithm>
#include <array>
#include <climits>
#include <map>
#include <numeric>

#include "launch/errors.h"
#include "trainer/share.h"

namespace kt {

void mark_top(std::span<const double> label, std::span<const uint32_t> by_label, int64_t top,
              std::span<uint8_t> relevant) {
  const auto n = std::ssize(label);
  std::fill(relevant.begin(), relevant.end(), static_cast<uint8_t>(n <= top));
  if (n <= top) return;
  // Of the lowest label among them, as many as are left, from the first on.
  const double lowest = label[by_label[static_cast<size_t>(n - top)]];
  const auto same = std::partition_point(by_label.begin(), by_label.end(),
                                         [&](uint32_t at) { return label[at] < lowest; });
  const auto higher =
      std::partition_point(same, by_label.end(), [&](uint32_t at) { return label[at] == lowest; });
  for (auto at = higher; at != by_label.end(); ++at) relevant[*at] = 1;
  const auto left = top - (by_label.end() - higher);
  for (auto at = same; at != same + left; ++at) relevant[*at] = 1;
}

namespace {

/// Values met so far, by open addressing: millions of durations are of few thousand values.
class Values {
 public:
  struct Entry {
    int32_t value = 0;
    uint8_t bucket = 0;
    int64_t count = 0;  // 0: a free place
  };

  Entry& at(int32_t value) {
    Entry& entry = place_of(value);
    if (entry.count > 0 || 2 * (size_ + 1) <= places_.size()) {
      size_ += entry.count == 0;
      entry.value = value;
      return entry;
    }
    std::vector<Entry> old(2 * places_.size());
    old.swap(places_);
    for (const Entry& one : old)
      if (one.count > 0) place_of(one.value) = one;
    return at(value);
  }
  template <class Visit>
  void for_each(Visit&& visit) {
    for (Entry& entry : places_)
      if (entry.count > 0) visit(entry);
  }

 private:
  Entry& place_of(int32_t value) {
    const size_t mask = places_.size() - 1;
    size_t place = (static_cast<uint32_t>(value) * 0x9e3779b1u >> 7) & mask;
    while (places_[place].count > 0 && places_[place].value != value) place = (place + 1) & mask;
    return places_[place];
  }

  std::vector<Entry> places_ = std::vector<Entry>(1024);
  size_t size_ = 0;
};

/// How many of each value all ranks have. Collective: all ranks.
std::map<int32_t, int64_t> count_all(Values& own, Communicator& comm) {
  std::vector<int64_t> flat;
  own.for_each([&](const Values::Entry& entry) {
    flat.push_back(entry.value);
    flat.push_back(entry.count);
  });
  const std::vector<int64_t> all = gather_to_all<int64_t>(flat, comm);
  std::map<int32_t, int64_t> counts;
  for (size_t i = 0; i < all.size(); i += 2) counts[static_cast<int32_t>(all[i])] += all[i + 1];
  return counts;
}

/// The bucket of each pair. Collective: all ranks.
std::vector<uint8_t> buckets_of(std::span<const int32_t> duration, Communicator& comm) {
  Values values;
  for (const int32_t value : duration) ++values.at(value).count;
  const std::map<int32_t, int64_t> counts = count_all(values, comm);
  int64_t n = 0, shorter = 0;
  for (const auto& [value, count] : counts) n += count;
  std::map<int32_t, uint8_t> bucket_of;
  for (const auto& [value, count] : counts) {
    bucket_of[value] = static_cast<uint8_t>(kDurationBuckets * shorter / n);
    shorter += count;
  }
  values.for_each([&](Values::Entry& entry) { entry.bucket = bucket_of.at(entry.value); });
  std::vector<uint8_t> buckets(duration.size());
  for (size_t i = 0; i < buckets.size(); ++i) buckets[i] = values.at(duration[i]).bucket;
  return buckets;
}

}  // namespace

std::vector<uint8_t> mark_duration_p80(std::span<const int32_t> duration,
                                       std::span<const double> label, Communicator& comm,
                                       ThreadPool& pool) {
  constexpr auto kBuckets = static_cast<size_t>(kDurationBuckets);
  KT_CHECK(duration.size() == label.size());
  const auto ranks = static_cast<size_t>(comm.world().size);
  const auto rank = static_cast<size_t>(comm.world().rank);
  std::vector<uint8_t> bucket = buckets_of(duration, comm);

  // Each bucket's labels go to one rank.
  std::array<int64_t, kBuckets> counts{}, next{};
  for (const uint8_t b : bucket) ++counts[b];
  std::exclusive_scan(counts.begin(), counts.end(), next.begin(), int64_t{0});
  std::vector<double> sent(label.size());
  for (size_t i = 0; i < label.size(); ++i) sent[static_cast<size_t>(next[bucket[i]]++)] = label[i];
  const auto first = [&](size_t r) { return kBuckets * r / ranks; };
  const std::vector<int64_t> all_counts = gather_to_all<int64_t>(counts, comm);  // [ranks, buckets]
  std::vector<int64_t> send(ranks, 0), receive(ranks, 0), owned(ranks);
  for (size_t r = 0; r < ranks; ++r) {
    for (size_t b = first(r); b < first(r + 1); ++b) send[r] += counts[b];
    for (size_t b = first(rank); b < first(rank + 1); ++b)
      receive[r] += all_counts[r * kBuckets + b];
    owned[r] = static_cast<int64_t>(first(r + 1) - first(r));
  }
  std::vector<double> arrived(
      static_cast<size_t>(std::accumulate(receive.begin(), receive.end(), int64_t{0})));
  comm.all_to_all<double>(sent, send, arrived, receive);

  std::vector<double> own(static_cast<size_t>(owned[rank]));
  pool.parallel_for(owned[rank], [&](int64_t k, int) {
    const size_t which = first(rank) + static_cast<size_t>(k);
    std::vector<double> labels;
    int64_t place = 0;
    for (size_t r = 0; r < ranks; ++r)
      for (size_t b = first(rank); b < first(rank + 1); ++b) {
        const int64_t end = place + all_counts[r * kBuckets + b];
        if (b == which) labels.insert(labels.end(), arrived.begin() + place, arrived.begin() + end);
        place = end;
      }
    if (labels.empty()) return;
    const auto at = labels.begin() + (std::ssize(labels) - 1) * 4 / 5;
    std::nth_element(labels.begin(), at, labels.end());
    own[static_cast<size_t>(k)] = *at;
  });
  std::array<double, kBuckets> threshold{};
  comm.all_gather<double>(own, threshold, owned);
  for (size_t i = 0; i < bucket.size(); ++i) bucket[i] = label[i] > threshold[bucket[i]];
  return bucket;
}

}  // namespace kt
