#include "trainer/evaluation/metrics/labels.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <map>
#include <numeric>
#include <string_view>

#include "launch/base/errors.h"
#include "trainer/run/share.h"

namespace kt {

namespace {

/// Whether `text` is the prefix and then nothing but a number, which `value` becomes.
template <class Number>
bool read_after(std::string_view prefix, std::string_view text, Number& value) {
  if (!text.starts_with(prefix)) return false;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + prefix.size(), end, value);
  return error == std::errc() && stop == end;
}

BinaryLabel binary_label(const std::string& name) {
  BinaryLabel label{.name = name};
  if (read_after("ratio>=", name, label.threshold) && std::isfinite(label.threshold))
    label.kind = BinaryLabel::Kind::kThreshold;
  else if (read_after("top-", name, label.top) && label.top >= 1)
    label.kind = BinaryLabel::Kind::kTop;
  else if (name != "duration-p80")
    user_error(
        "evaluate.labels: got {}, expected ratio>=X with a number X, top-N with N of 1 or more, or "
        "duration-p80; mend its name or take it out",
        name);
  return label;
}

}  // namespace

std::vector<BinaryLabel> binary_labels(std::span<const std::string> names) {
  if (names.size() > kMostLabels)
    user_error("evaluate.labels: got {} labels, expected {} at most; take some out", names.size(),
               kMostLabels);
  std::vector<BinaryLabel> labels;
  for (const std::string& name : names) labels.push_back(binary_label(name));
  return labels;
}

const BinaryLabel* highest_threshold(std::span<const BinaryLabel> labels) {
  const BinaryLabel* highest = nullptr;
  for (const BinaryLabel& label : labels)
    if (label.kind == BinaryLabel::Kind::kThreshold &&
        (highest == nullptr || label.threshold > highest->threshold))
      highest = &label;
  return highest;
}

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
  int64_t pair;
  uint32_t rank;
};

/// What a thread finds.
struct Worker {
  NumberOf pairs;
  std::vector<uint32_t> counts;  // [kDurationBuckets, bins]
  std::array<std::vector<Candidate>, kDurationBuckets> candidates;
};

/// One more than the bucket of each duration of all ranks. Collective: all ranks.
NumberOf find_buckets(std::span<const Worker> workers, Communicator& comm) {
  std::vector<int64_t> own;
  for (const Worker& worker : workers)
    for (const NumberOf::Entry& entry : worker.pairs.entries())
      if (entry.number > 0) own.insert(own.end(), {entry.duration, entry.number});
  const std::vector<int64_t> all = gather_to_all<int64_t>(own, comm);
  std::map<int32_t, int64_t> counts;
  int64_t n = 0, shorter = 0;
  for (size_t i = 0; i < all.size(); i += 2) {
    counts[static_cast<int32_t>(all[i])] += all[i + 1];
    n += all[i + 1];
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

/// The chosen labels' ranks among all ranks' candidates. Collective: all ranks.
std::array<uint32_t, kDurationBuckets> select(std::span<const Choice> choices,
                                              std::span<const Worker> workers, Communicator& comm) {
  std::vector<int64_t> own;  // bucket and rank
  for (size_t b = 0; b < choices.size(); ++b)
    for (const Worker& worker : workers)
      for (const Candidate& candidate : worker.candidates[b])
        own.push_back(static_cast<int64_t>(b << 32 | candidate.rank));
  std::vector<int64_t> all = gather_to_all<int64_t>(own, comm);
  std::ranges::sort(all);
  std::array<uint32_t, kDurationBuckets> chosen{};
  for (size_t b = 0; b < choices.size(); ++b) {
    const auto first = std::ranges::lower_bound(all, static_cast<int64_t>(b << 32));
    if (choices[b].bin >= 0) chosen[b] = static_cast<uint32_t>(*(first + choices[b].at));
  }
  return chosen;
}

}  // namespace

std::vector<uint8_t> mark_duration_p80(std::span<const DurationPairs> users, Communicator& comm,
                                       ThreadPool& pool) {
  std::vector<int64_t> begin{0};
  for (const DurationPairs& user : users) begin.push_back(begin.back() + std::ssize(user.duration));
  std::vector<Worker> workers(static_cast<size_t>(pool.threads()));
  const auto for_each_user = [&](auto&& work) {
    pool.parallel_for(std::ssize(users), [&](int64_t k, int thread) {
      work(users[static_cast<size_t>(k)], begin[static_cast<size_t>(k)],
           workers[static_cast<size_t>(thread)]);
    });
  };
  for_each_user([](const DurationPairs& user, int64_t, Worker& worker) {
    for (const int32_t duration : user.duration) ++worker.pairs[duration];
  });
  const NumberOf buckets = find_buckets(workers, comm);

  int64_t highest = 0;  // rank
  for (const DurationPairs& user : users)
    if (!user.label_rank.empty()) highest = std::max(highest, int64_t{user.label_rank.back()});
  comm.all_reduce(std::span(&highest, 1), Reduction::kMax);
  const int shift =
      std::max(0, static_cast<int>(std::bit_width(static_cast<uint64_t>(highest))) - kBinBits);
  const size_t bins = static_cast<size_t>(highest >> shift) + 1;
  std::vector<uint8_t> marks(static_cast<size_t>(begin.back()));  // at first the pairs' buckets
  for (Worker& worker : workers) worker.counts.assign(kDurationBuckets * bins, 0);
  for_each_user([&](const DurationPairs& user, int64_t first, Worker& worker) {
    const auto [durations, by_label, rank] = user;
    uint8_t* const bucket_of = marks.data() + first;
    uint32_t* const counts = worker.counts.data();
    for (size_t i = 0; i < durations.size(); ++i)
      bucket_of[i] = static_cast<uint8_t>(buckets.at(durations[i]) - 1);
    const size_t width = bins;
    for (size_t i = 0; i < rank.size(); ++i)
      ++counts[bucket_of[by_label[i]] * width + (rank[i] >> shift)];
  });
  std::vector<int64_t> counts(workers[0].counts.size(), 0);
  for (const Worker& worker : workers)
    for (size_t i = 0; i < counts.size(); ++i) counts[i] += worker.counts[i];
  comm.all_reduce(std::span<int64_t>(counts), Reduction::kSum);

  // All but the labels of the chosen bins are on one side already.
  const std::array<Choice, kDurationBuckets> choices = choose_percentiles(counts);
  for_each_user([&](const DurationPairs& user, int64_t first, Worker& worker) {
    const auto [durations, by_label, rank] = user;
    uint8_t* const marks_of = marks.data() + first;
    const std::array<Choice, kDurationBuckets> choice = choices;
    for (size_t i = 0; i < rank.size(); ++i) {
      const uint32_t place = by_label[i];
      const uint8_t b = marks_of[place];
      const int64_t bin = rank[i] >> shift;
      marks_of[place] = bin > choice[b].bin;
      if (bin == choice[b].bin) worker.candidates[b].push_back({first + place, rank[i]});
    }
  });
  const std::array<uint32_t, kDurationBuckets> percentile = select(choices, workers, comm);
  for (const Worker& worker : workers)
    for (size_t b = 0; b < percentile.size(); ++b)
      for (const Candidate& candidate : worker.candidates[b])
        marks[static_cast<size_t>(candidate.pair)] = candidate.rank > percentile[b];
  return marks;
}

}  // namespace kt
