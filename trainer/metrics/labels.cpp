#include "trainer/metrics/labels.h"

#include <algorithm>
#include <climits>
#include <map>
#include <numeric>

#include "launch/errors.h"
#include "trainer/share.h"

namespace kt {

void mark_top(std::span<const double> label, int64_t top, std::span<uint8_t> relevant,
              std::vector<int32_t>& order) {
  const int64_t n = std::ssize(label);
  if (n <= top) {
    std::fill(relevant.begin(), relevant.end(), uint8_t{1});
    return;
  }
  std::fill(relevant.begin(), relevant.end(), uint8_t{0});
  order.resize(label.size());
  std::iota(order.begin(), order.end(), 0);
  std::nth_element(order.begin(), order.begin() + top, order.end(), [&](int32_t a, int32_t b) {
    const double label_a = label[static_cast<size_t>(a)], label_b = label[static_cast<size_t>(b)];
    return label_a != label_b ? label_a > label_b : a < b;
  });
  for (int64_t i = 0; i < top; ++i)
    relevant[static_cast<size_t>(order[static_cast<size_t>(i)])] = 1;
}

namespace {

/// How many there are of each value, ascending. The last of a value's place in a small table are counted there, so
/// that the map sees few.
std::map<int32_t, int64_t> count_values(std::span<const int32_t> values) {
  struct Place {
    int32_t value = 0;
    int32_t count = 0;
  };
  std::vector<Place> places(size_t{1} << 14);
  std::map<int32_t, int64_t> counts;
  const auto empty = [&](const Place& place) {
    if (place.count > 0) counts[place.value] += place.count;
  };
  for (const int32_t value : values) {
    Place& place = places[(static_cast<uint32_t>(value) * 0x9e3779b1u) >> 18];
    if (place.value != value || place.count == INT_MAX) {
      empty(place);
      place = {value, 0};
    }
    ++place.count;
  }
  for (const Place& place : places) empty(place);
  return counts;
}

/// The same of all ranks' values. Collective: all ranks.
std::map<int32_t, int64_t> count_all_values(std::span<const int32_t> own, Communicator& comm) {
  const std::map<int32_t, int64_t> own_counts = count_values(own);
  std::vector<int64_t> flat;
  for (const auto& [value, count] : own_counts) flat.insert(flat.end(), {value, count});
  const std::vector<int64_t> all = gather_to_all<int64_t>(flat, comm);
  std::map<int32_t, int64_t> counts;
  for (size_t i = 0; i < all.size(); i += 2) counts[static_cast<int32_t>(all[i])] += all[i + 1];
  return counts;
}

}  // namespace

DurationP80::DurationP80(std::span<const int32_t> duration, std::span<const double> label,
                         Communicator& comm, ThreadPool& pool) {
  KT_CHECK(duration.size() == label.size());
  const World world = comm.world();
  const auto n = std::ssize(duration), rank = int64_t{world.rank}, ranks = int64_t{world.size};
  const auto begin = static_cast<size_t>(n * rank / ranks);
  const auto end = static_cast<size_t>(n * (rank + 1) / ranks);
  // A pair is in bucket b or later when at least m = ceil(b N / buckets) pairs are shorter, that
  // is, when the m-th shortest is.
  int64_t b = 1, shorter = 0;
  for (const auto& [value, count] : count_all_values(duration.subspan(begin, end - begin), comm)) {
    shorter += count;
    for (; b < kBuckets && shorter >= (b * n + kBuckets - 1) / kBuckets; ++b)
      last_before_[static_cast<size_t>(b - 1)] = value;
  }

  const auto first_bucket = [&](int64_t r) { return static_cast<size_t>(kBuckets * r / ranks); };
  const size_t first = first_bucket(rank), last = first_bucket(rank + 1);
  std::array<std::vector<double>, kBuckets> labels;
  for (size_t i = 0; i < label.size(); ++i) {
    const size_t of = bucket(duration[i]);
    if (of >= first && of < last) labels[of].push_back(label[i]);
  }
  std::vector<double> own(last - first);
  pool.parallel_for(std::ssize(own), [&](int64_t k, int) {
    std::vector<double>& of = labels[first + static_cast<size_t>(k)];
    if (of.empty()) return;
    const auto at = of.begin() + (std::ssize(of) - 1) * 4 / 5;
    std::nth_element(of.begin(), at, of.end());
    own[static_cast<size_t>(k)] = *at;
  });
  std::vector<int64_t> counts;
  for (int64_t r = 0; r < ranks; ++r)
    counts.push_back(static_cast<int64_t>(first_bucket(r + 1) - first_bucket(r)));
  comm.all_gather<double>(own, threshold_, counts);
}

}  // namespace kt
