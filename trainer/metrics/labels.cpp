#include "trainer/metrics/labels.h"

#include <algorithm>
#include <array>
#include <map>
#include <numeric>

#include "launch/errors.h"
#include "trainer/metrics/order_keys.h"
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

namespace {

/// Bins of labels, 128 to an octave, in the labels' order.
uint32_t bin_of(double label) { return metrics::order_key(static_cast<float>(label)) >> 16; }

/// The 80th percentile of each bucket: counted in bins first, then chosen in the one bin that holds it.
/// Collective: all ranks.
std::array<double, kDurationBuckets> percentiles(std::span<const uint8_t> bucket,
                                                 std::span<const double> label,
                                                 Communicator& comm) {
  uint32_t low = UINT32_MAX, high = 0;
  std::vector<uint32_t> bin(label.size());
  for (size_t i = 0; i < label.size(); ++i) {
    bin[i] = bin_of(label[i]);
    low = std::min(low, bin[i]);
    high = std::max(high, bin[i]);
  }
  std::array<int64_t, 2> range{-static_cast<int64_t>(low), high};
  comm.all_reduce(std::span<int64_t>(range), Reduction::kMax);
  const auto first = static_cast<uint32_t>(-range[0]);
  const auto bins = static_cast<size_t>(std::max<int64_t>(range[1] + range[0] + 1, 0));
  std::vector<int64_t> counts(kDurationBuckets * bins, 0);
  for (size_t i = 0; i < bin.size(); ++i) ++counts[bucket[i] * bins + (bin[i] - first)];
  comm.all_reduce(std::span<int64_t>(counts), Reduction::kSum);

  struct Chosen {
    uint32_t bin = UINT32_MAX;  // UINT32_MAX: the bucket is empty
    int64_t at = 0;             // of the labels in it, in their order
  };
  std::array<Chosen, kDurationBuckets> chosen;
  for (int64_t b = 0; b < kDurationBuckets; ++b) {
    const std::span<const int64_t> own = std::span(counts).subspan(b * bins, bins);
    const int64_t n = std::accumulate(own.begin(), own.end(), int64_t{0});
    if (n == 0) continue;
    Chosen& choice = chosen[b];
    choice.at = (n - 1) * 4 / 5;
    for (choice.bin = first; choice.at >= own[choice.bin - first]; ++choice.bin)
      choice.at -= own[choice.bin - first];
  }
  std::array<std::vector<double>, kDurationBuckets> candidates;
  for (size_t i = 0; i < bin.size(); ++i)
    if (bin[i] == chosen[bucket[i]].bin) candidates[bucket[i]].push_back(label[i]);
  std::array<double, kDurationBuckets> threshold{};
  for (int64_t b = 0; b < kDurationBuckets; ++b) {
    std::vector<double> all = gather_to_all<double>(candidates[b], comm);
    if (all.empty()) continue;
    std::nth_element(all.begin(), all.begin() + chosen[b].at, all.end());
    threshold[b] = all[chosen[b].at];
  }
  return threshold;
}

}  // namespace

std::vector<uint8_t> mark_duration_p80(std::span<const int32_t> duration,
                                       std::span<const double> label, Communicator& comm) {
  KT_CHECK(duration.size() == label.size());
  std::vector<uint8_t> bucket = buckets_of(duration, comm);
  const std::array<double, kDurationBuckets> threshold = percentiles(bucket, label, comm);
  for (size_t i = 0; i < bucket.size(); ++i) bucket[i] = label[i] > threshold[bucket[i]];
  return bucket;
}

}  // namespace kt
