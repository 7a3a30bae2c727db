#include "trainer/evaluation/metrics/pair_order.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <numeric>

#include "launch/base/errors.h"
#include "trainer/run/share.h"

namespace kt::metrics {

namespace {

/// Label ranges of a rank: enough for its threads to share them out evenly, and for one to be sorted in the cache.
constexpr size_t kPiecesPerRank = 64;
/// Digits that keys are counted by at once, of a higher and a lower half; score ranges of all ranks.
constexpr int kHalfBits = 4, kDigitBits = 2 * kHalfBits;
constexpr size_t kHalves = size_t{1} << kHalfBits, kDigits = size_t{1} << kDigitBits;
/// Of few numbers, 128 share a digit at most: a bit each.
constexpr int kFewBits = kDigitBits + 7;

/// Keys of a sample, of each range that it parts.
constexpr size_t kSampled = 32;

/// Elements ahead of which a cache line is fetched that one of many sequences will be written to.
constexpr size_t kPrefetched = 16;

int64_t choose_two(int64_t n) { return n * (n - 1) / 2; }

/// [d][e]: 1 where e < d.
alignas(32) constexpr auto kBelow = [] {
  std::array<std::array<uint16_t, kHalves>, kHalves> table{};
  for (size_t d = 0; d < kHalves; ++d)
    for (size_t e = 0; e < d; ++e) table[d][e] = 1;
  return table;
}();

/// Counts digits, and tells how many of these are above one.
class DigitsAbove {
 public:
  static constexpr size_t kMost = UINT16_MAX;

  uint32_t of(size_t digit) const {
    return uint32_t{high_above_[digit >> kHalfBits]} +
           low_above_[digit >> kHalfBits][digit % kHalves];
  }
  void add(size_t digit) {
    std::array<uint16_t, kHalves>& low_above = low_above_[digit >> kHalfBits];
    high_counts_ += load(kBelow[digit >> kHalfBits]);
    store(high_counts_, high_above_);
    store(load(low_above) + load(kBelow[digit % kHalves]), low_above);
  }

 private:
  using Counts [[gnu::vector_size(32)]] = uint16_t;  // a register of the processors we need

  static Counts load(const std::array<uint16_t, kHalves>& counts) {
    Counts result;
    std::memcpy(&result, counts.data(), sizeof(result));
    return result;
  }
  static void store(Counts counts, std::array<uint16_t, kHalves>& to) {
    std::memcpy(to.data(), &counts, sizeof(counts));
  }

  // How many have a higher half above each; of those with each higher half, how many have a lower half above each.
  Counts high_counts_{};  // in a register, and in memory to read one of them
  alignas(32) std::array<uint16_t, kHalves> high_above_{};
  alignas(32) std::array<std::array<uint16_t, kHalves>, kHalves> low_above_{};
};

/// Appends each value to the range of its digit; returns the pairs whose digits descend. Shapes: digit_of(i) and
/// value_of(i) of value i < n; to [digits], kDigits at most.
template <class DigitOf, class ValueOf>
int64_t distribute(size_t n, DigitOf&& digit_of, ValueOf&& value_of, std::span<uint32_t*> to) {
  int64_t descending = 0;
  std::array<uint32_t, kDigits> before{};  // digits above each before this chunk
  for (size_t i = 0; i < n;) {
    DigitsAbove above;
    for (const size_t end = std::min(n, i + DigitsAbove::kMost); i < end; ++i) {
      const size_t digit = digit_of(i);
      descending += before[digit] + above.of(digit);
      above.add(digit);
      __builtin_prefetch(to[digit] + kPrefetched, 1);
      *to[digit]++ = value_of(i);
    }
    for (size_t digit = 0; digit < to.size(); ++digit) before[digit] += above.of(digit);
  }
  return descending;
}

/// Pairs in descending order of different numbers below 2^bits. A digit has a word of bits, or two.
template <size_t kWords>
int64_t descending_of_few(std::span<const uint32_t> numbers, int bits) {
  constexpr int kWordBits = 6;
  const int shift = std::max(0, bits - kDigitBits), word_shift = std::min(shift, kWordBits);
  const uint32_t last = (uint32_t{1} << word_shift) - 1;
  DigitsAbove above;
  std::array<uint64_t, kWords * kDigits> met;  // bits of the numbers so far
  std::fill_n(met.begin(), size_t{1} << (bits - word_shift), 0);
  int64_t descending = 0;
  for (const uint32_t number : numbers) {
    const size_t digit = number >> shift, word = number >> word_shift;
    descending += above.of(digit) + std::popcount(met[word] >> (number & last));
    if constexpr (kWords == 2)
      descending += std::popcount(met[word | 1] & (word % 2 == 0 ? ~uint64_t{0} : 0));
    above.add(digit);
    met[word] |= uint64_t{1} << (number & last);
  }
  return descending;
}

/// Pairs in descending order of all numbers below n, each once.
int64_t descending_of_all(std::span<const uint32_t> numbers) {
  const size_t n = numbers.size();
  if (n < 2) return 0;
  const auto bits = static_cast<int>(std::bit_width(n - 1));
  if (bits < kFewBits) return descending_of_few<1>(numbers, bits);
  if (bits == kFewBits) return descending_of_few<2>(numbers, bits);
  const int shift = std::max(bits - kDigitBits, kFewBits - 2);
  // Upper digits, since counts of one higher half wait for each other.
  const int up = kDigitBits - (bits - shift);
  const auto begin_of = [=](size_t range) { return std::min(range << shift, n); };
  std::vector<uint32_t> ranges(n);
  std::array<uint32_t*, kDigits> to{};
  for (size_t range = 0; range < kDigits >> up; ++range)
    to[range << up] = ranges.data() + begin_of(range);
  int64_t descending = distribute(
      n, [=](size_t i) { return size_t{numbers[i] >> shift} << up; },
      [=, last = (uint32_t{1} << shift) - 1](size_t i) { return numbers[i] & last; }, to);
  for (size_t range = 0; range < kDigits >> up; ++range)
    descending += descending_of_all(
        std::span(ranges).subspan(begin_of(range), begin_of(range + 1) - begin_of(range)));
  return descending;
}

/// Pairs of a sequence of keys, the earlier one the larger. Some places in it part pairs: one key before the place, one
/// from it on.
struct Inversions {
  int64_t descending = 0;
  int64_t equal = 0;
  /// Of the pairs that each place parts, two for a descending one, one for an equal one.
  std::array<int64_t, kMostThresholds> parted{};

  void add(const Inversions& other) {
    descending += other.descending;
    equal += other.equal;
    for (size_t t = 0; t < kMostThresholds; ++t) parted[t] += other.parted[t];
  }
};

/// Pairs of one key before the place and one from it on, the first below the second in the order, where equal keys are
/// in the order of the sequence.
int64_t ascending_across(std::span<const uint32_t> order, uint32_t place) {
  // Each late key is above as many early ones as all keys below it less the late ones of these.
  constexpr size_t kBlock = 1024;
  int64_t late = 0, below = 0;
  for (size_t begin = 0; begin < order.size(); begin += kBlock) {
    const std::span<const uint32_t> block =
        order.subspan(begin, std::min(kBlock, order.size() - begin));
    uint32_t count = 0, sum = 0;
    for (uint32_t i = 0; i < block.size(); ++i) {
      count += block[i] >= place;
      sum += block[i] >= place ? i : 0;
    }
    late += count;
    below += static_cast<int64_t>(count) * static_cast<int64_t>(begin) + sum;
  }
  return below - choose_two(late);
}

/// Shapes: places ascending, 0..n.
Inversions count_inversions(std::span<const uint32_t> order, std::span<const EqualRun> equal,
                            std::span<const int64_t> places) {
  Inversions sum;
  sum.descending = descending_of_all(order);
  for (const EqualRun& run : equal) sum.equal += choose_two(run.end - run.begin);
  for (size_t t = 0; t < places.size(); ++t) {
    const int64_t early = places[t], late = std::ssize(order) - early;
    const auto place = static_cast<uint32_t>(early);
    sum.parted[t] = 2 * (early * late - ascending_across(order, place));
    for (const EqualRun& run : equal) {
      const auto keys = order.subspan(run.begin, run.end - run.begin);
      const auto before = std::ranges::lower_bound(keys, place) - keys.begin();
      sum.parted[t] += before * (std::ssize(keys) - before);
    }
  }
  return sum;
}

/// Sorts the keys first. Shapes: places ascending, 0..n.
Inversions count_inversions(std::span<const uint32_t> keys, std::span<const int64_t> places,
                            OrderBuffers& buffers) {
  buffers.places.resize(keys.size());
  buffers.order.sort(keys, buffers.places, buffers.runs);
  return count_inversions(buffers.places, buffers.runs, places);
}

/// Keys by score range, before each of some places and in all.
class RangeCounts {
 public:
  explicit RangeCounts(size_t places) : places_(places), before_((places + 1) * kDigits, 0) {}

  /// Shapes: range_of [keys] in the order of the labels; places [places].
  void count(std::span<const uint8_t> range_of, std::span<const int64_t> places) {
    size_t i = 0;
    for (size_t t = 0; t <= places_; ++t) {
      const size_t end = t < places_ ? static_cast<size_t>(places[t]) : range_of.size();
      for (; i < end; ++i) ++before_[t * kDigits + range_of[i]];
      if (t == places_) break;
      for (size_t d = 0; d < kDigits; ++d) before_[(t + 1) * kDigits + d] = before(t, d);
    }
  }
  int64_t of(size_t d) const { return before(places_, d); }
  /// Of the range, before place t.
  int64_t before(size_t t, size_t d) const { return before_[t * kDigits + d]; }
  /// Pairs that place t parts, the later key in the lower range.
  int64_t descending_across(size_t t) const {
    int64_t pairs = 0, above = 0;
    for (size_t d = kDigits; d-- > 0; above += before(t, d))
      pairs += (of(d) - before(t, d)) * above;
    return pairs;
  }
  /// Shapes: result [places + 1, kDigits].
  std::span<const int64_t> flat() const { return before_; }
  void add(std::span<const int64_t> flat) {
    for (size_t k = 0; k < flat.size(); ++k) before_[k] += flat[k];
  }

 private:
  size_t places_;
  std::vector<int64_t> before_;
};

/// About so many of all ranks' keys, ascending; the same on all ranks. Shapes: key_of(i) key i < n of this rank's, called
/// for some, ascending. Collective: all ranks.
template <class KeyOf>
std::vector<uint64_t> sample_keys(size_t count, size_t n, Communicator& comm, KeyOf&& key_of) {
  auto total = static_cast<int64_t>(n);
  comm.all_reduce(std::span(&total, 1), Reduction::kSum);
  const size_t stride = static_cast<size_t>(total) / count + 1;
  std::vector<uint64_t> own;
  for (size_t i = 0; i < n; i += stride) own.push_back(key_of(i));
  std::vector<uint64_t> sample = gather_to_all<uint64_t>(own, comm);
  std::ranges::sort(sample);
  return sample;
}

/// The first key of each range but the first, of ranges that hold about as many keys each; then the largest integer, which no
/// key is. Shapes: sample of the keys, ascending; result [ranges].
std::vector<uint64_t> ends_of_ranges(std::span<const uint64_t> sample, size_t ranges) {
  std::vector<uint64_t> ends(ranges, UINT64_MAX);
  for (size_t r = 1; r < ranges && !sample.empty(); ++r)
    ends[r - 1] = sample[sample.size() * r / ranges];
  return ends;
}

/// Which of kDigits ranges a key is in, to the nearest cell of a table over the keys' whole width: where ranges end
/// exactly does not matter, but that they ascend.
class RangeOf {
 public:
  /// Shapes: sample of the keys, ascending.
  explicit RangeOf(std::span<const uint64_t> sample)
      : range_(size_t{1} << kCellBits, uint8_t{kDigits - 1}) {
    if (sample.empty()) return;
    least_ = static_cast<uint32_t>(sample.front());
    width_ = static_cast<uint32_t>(sample.back()) - least_;
    shift_ = std::max(0, static_cast<int>(std::bit_width(width_)) - kCellBits);
    const std::vector<uint64_t> ends = ends_of_ranges(sample, kDigits);
    size_t cell = 0;
    for (size_t d = 0; d + 1 < kDigits; ++d)
      for (const size_t end = cell_of(static_cast<uint32_t>(ends[d])); cell < end; ++cell)
        range_[cell] = static_cast<uint8_t>(d);
  }
  uint8_t operator()(uint32_t key) const { return range_[cell_of(key)]; }

 private:
  static constexpr int kCellBits = 18;

  size_t cell_of(uint32_t key) const {
    return std::min(std::max(key, least_) - least_, width_) >> shift_;
  }

  uint32_t least_ = 0, width_ = 0;
  int shift_ = 0;
  std::vector<uint8_t> range_;  // [cells]
};

/// The first n of the memory, whatever it holds; more of it where that is too little.
std::span<uint32_t> view(HugeArray<uint32_t>& memory, size_t n) {
  if (memory.size() < n) memory = HugeArray<uint32_t>(n);
  return {memory.data(), n};
}

/// Some of what arrived, together. Shapes: parts [.], the first of each and how many.
void collect(std::span<const std::array<int64_t, 2>> parts, std::span<const uint32_t> arrived,
             std::vector<uint32_t>& to) {
  to.clear();
  for (const auto [first, size] : parts)
    to.insert(to.end(), arrived.begin() + first, arrived.begin() + first + size);
}

/// The place from `i` on of the first key that is `end` or more. Shapes: keys ascending.
uint32_t first_from(uint64_t end, std::span<const uint32_t> keys, uint32_t i) {
  constexpr uint32_t kBlock = 16;  // counted without branches, which nobody could predict
  while (i + kBlock <= keys.size()) {
    uint32_t below = 0;
    for (uint32_t k = 0; k < kBlock; ++k) below += keys[i + k] < end;
    i += below;
    if (below < kBlock) return i;
  }
  while (i < keys.size() && keys[i] < end) ++i;
  return i;
}

PairOrder pair_order(int64_t rows, std::span<const int64_t> below, int64_t same_label,
                     const Inversions& all, const Inversions& inside_runs) {
  PairOrder order;
  order.pairs = choose_two(rows) - same_label;
  order.tied = all.equal - inside_runs.equal;
  order.alike = order.pairs - order.tied - (all.descending - inside_runs.descending);
  for (size_t t = 0; t < below.size(); ++t) {
    const int64_t negatives = below[t], positives = rows - negatives;
    order.classes.push_back({.positives = positives,
                             .negatives = negatives,
                             .halves = 2 * positives * negatives - all.parted[t]});
  }
  return order;
}

/// Pairs inside the runs of equal labels: their order says nothing.
Inversions count_inside_runs(const LabelOrder& order, std::span<const uint32_t> keys,
                             OrderBuffers& buffers) {
  constexpr uint32_t kFew = 32;
  Inversions sum;
  for (const EqualRun& run : order.runs) {
    const auto own = keys.subspan(run.begin, run.end - run.begin);
    if (own.size() > kFew) {
      sum.add(count_inversions(own, {}, buffers));
      continue;
    }
    for (size_t i = 0; i < own.size(); ++i)
      for (size_t j = i + 1; j < own.size(); ++j) {
        sum.descending += own[i] > own[j];
        sum.equal += own[i] == own[j];
      }
  }
  return sum;
}

int64_t pairs_inside(std::span<const EqualRun> runs) {
  int64_t pairs = 0;
  for (const EqualRun& run : runs) pairs += choose_two(run.end - run.begin);
  return pairs;
}

/// How many rows are below each threshold. Shapes: row [n] by ascending label.
template <class Label, class Threshold>
std::vector<int64_t> rows_below(std::span<const Label> labels, std::span<const uint32_t> row,
                                std::span<const Threshold> thresholds) {
  std::vector<int64_t> below;
  for (const Threshold threshold : thresholds)
    below.push_back(std::partition_point(row.begin(), row.end(),
                                         [&](uint32_t one) { return labels[one] < threshold; }) -
                    row.begin());
  return below;
}

template <class Label, class Threshold>
LabelOrder sorted_order(std::span<const Label> labels, std::span<const Threshold> thresholds,
                        std::span<uint32_t> row, OrderBuffers& buffers) {
  buffers.order.sort(labels, row, buffers.runs);
  return {.row = row,
          .runs = buffers.runs,
          .below = rows_below<Label, Threshold>(labels, row, thresholds),
          .same_label = pairs_inside(buffers.runs)};
}

}  // namespace

LabelOrder order_labels(std::span<const double> labels, std::span<const double> thresholds,
                        std::span<uint32_t> row, OrderBuffers& buffers) {
  return sorted_order(labels, thresholds, row, buffers);
}

LabelOrder known_order(std::span<const double> labels, std::span<const double> thresholds,
                       std::span<const uint32_t> row, std::span<const uint32_t> rank) {
  LabelOrder order{.row = row, .runs = {}, .below = rows_below(labels, row, thresholds)};
  for (uint32_t i = 0; i + 1 < rank.size(); ++i) {
    if (rank[i] != rank[i + 1]) continue;
    const uint32_t begin = i;
    while (i + 1 < rank.size() && rank[i + 1] == rank[begin]) ++i;
    order.runs.push_back({begin, i + 1});
  }
  order.same_label = pairs_inside(order.runs);
  return order;
}

std::span<const uint32_t> score_keys(std::span<const uint32_t> row, std::span<const float> scores,
                                     OrderBuffers& buffers) {
  buffers.keys.resize(row.size());
  for (size_t i = 0; i < row.size(); ++i) buffers.keys[i] = order_key(scores[row[i]]);
  return buffers.keys;
}

ScoreOrder order_scores(std::span<const uint32_t> keys, OrderBuffers& buffers) {
  buffers.scores.resize(keys.size());
  buffers.order.sort(keys, buffers.scores, buffers.ties);
  return {.keys = keys, .place = buffers.scores, .runs = buffers.ties};
}

PairOrder count_pair_order(const LabelOrder& labels, const ScoreOrder& scores,
                           OrderBuffers& buffers) {
  return pair_order(std::ssize(labels.row), labels.below, labels.same_label,
                    count_inversions(scores.place, scores.runs, labels.below),
                    count_inside_runs(labels, scores.keys, buffers));
}

void GlobalOrder::take(size_t k, std::span<const uint32_t> keys) {
  const Part& part = parts_[k];
  KT_CHECK(keys.size() == part.begin.back());
  for (size_t piece = 0; piece < part.to.size(); ++piece)
    std::copy(keys.begin() + part.begin[piece], keys.begin() + part.begin[piece + 1],
              sent_.begin() + part.to[piece]);
}

GlobalOrder::GlobalOrder(std::span<const OrderedLabels> labels, size_t thresholds,
                         Communicator& comm, ThreadPool& pool) {
  KT_CHECK(thresholds <= kMostThresholds);
  size_t rows = 0;
  for (const OrderedLabels& part : labels) rows += part.key.size();
  KT_CHECK(rows <= UINT32_MAX);
  const World world = comm.world();
  const auto ranks = static_cast<size_t>(world.size);
  const size_t pieces = kPiecesPerRank * ranks;
  auto sampled = labels.begin();
  const std::vector<uint64_t> sample =
      sample_keys(kSampled * pieces, rows, comm, [&, first = size_t{0}](size_t i) mutable {
        for (; i - first >= sampled->key.size(); ++sampled) first += sampled->key.size();
        return sampled->key[i - first];
      });
  const std::vector<uint64_t> ends = ends_of_ranges(sample, pieces);
  std::vector<int64_t> least(thresholds, int64_t{UINT32_MAX} + 1);  // key from each threshold on
  for (const OrderedLabels& part : labels)
    for (size_t t = 0; t < part.below.size(); ++t)
      if (const auto at = static_cast<size_t>(part.below[t]); at < part.key.size())
        least[t] = std::min(least[t], int64_t{part.key[at]});
  comm.all_reduce(std::span<int64_t>(least), Reduction::kMin);
  parts_.resize(labels.size());
  pool.parallel_for(std::ssize(parts_), [&](int64_t k, int) {
    Part& part = parts_[static_cast<size_t>(k)];
    const std::span<const uint32_t> key = labels[static_cast<size_t>(k)].key;
    part.begin.reserve(pieces + 1);
    part.begin.push_back(0);
    uint32_t i = 0;
    for (const uint64_t end : ends) part.begin.push_back(i = first_from(end, key, i));
  });
  std::vector<int64_t> counts(pieces, 0);  // rows of this rank in each piece
  uint32_t next = 0;
  for (size_t piece = 0; piece < pieces; ++piece)
    for (Part& part : parts_) {
      part.to.push_back(next);
      next += part.begin[piece + 1] - part.begin[piece];
      counts[piece] += part.begin[piece + 1] - part.begin[piece];
    }

  // Of each rank's rows, those in the pieces of this one.
  std::vector<int64_t> own_counts(pieces);  // [ranks, pieces of the rank]
  const std::vector<int64_t> to_each(ranks, kPiecesPerRank);
  comm.all_to_all<int64_t>(counts, to_each, own_counts, to_each);
  const auto rows_of = [&](const std::vector<int64_t>& of_pieces, size_t r) {
    const auto begin = of_pieces.begin() + static_cast<int64_t>(r * kPiecesPerRank);
    return std::accumulate(begin, begin + kPiecesPerRank, int64_t{0});
  };
  for (size_t r = 0; r < ranks; ++r) {
    send_counts_.push_back(rows_of(counts, r));
    receive_counts_.push_back(rows_of(own_counts, r));
  }
  const int64_t received =
      std::accumulate(receive_counts_.begin(), receive_counts_.end(), int64_t{0});
  KT_CHECK(received <= UINT32_MAX);
  // As much as scores will want: score ranges are of about as many rows a rank.
  const size_t most = std::max(rows, static_cast<size_t>(received));
  sent_ = HugeArray<uint32_t>(most + most / 16);
  pool.parallel_for(std::ssize(parts_), [&](int64_t k, int) {
    take(static_cast<size_t>(k), labels[static_cast<size_t>(k)].key);
  });
  arrived_ = HugeArray<uint32_t>(most + most / 16);
  comm.all_to_all(sent_.data(), send_counts_, arrived_.data(), receive_counts_, DataType::kInt32);

  pieces_.resize(kPiecesPerRank);
  int64_t arrival = 0;
  for (size_t from = 0; from < ranks; ++from)
    for (size_t p = 0; p < kPiecesPerRank; ++p) {
      const int64_t size = own_counts[from * kPiecesPerRank + p];
      pieces_[p].arrival.push_back({arrival, size});
      arrival += size;
    }
  row_ = HugeArray<uint32_t>(static_cast<size_t>(received));
  std::vector<std::span<uint32_t>> row_of(kPiecesPerRank);
  int64_t begin = 0;
  for (size_t p = 0; p < kPiecesPerRank; ++p) {
    pieces_[p].begin = begin;
    for (const auto [_, size] : pieces_[p].arrival) begin += size;
    row_of[p] = std::span(row_).subspan(static_cast<size_t>(pieces_[p].begin),
                                        static_cast<size_t>(begin - pieces_[p].begin));
  }
  std::vector<OrderBuffers> buffers(static_cast<size_t>(pool.threads()));
  pool.parallel_for(kPiecesPerRank, [&](int64_t p, int thread) {
    const auto at = static_cast<size_t>(p);
    OrderBuffers& own = buffers[static_cast<size_t>(thread)];
    collect(pieces_[at].arrival, arrived_, own.labels);
    pieces_[at].order = sorted_order<uint32_t, int64_t>(own.labels, least, row_of[at], own);
  });

  // Equal labels are of one piece, so runs never go on in another.
  std::vector<int64_t> sums(2 + thresholds, 0);
  for (const Piece& piece : pieces_) {
    sums[0] += std::ssize(piece.order.row);
    sums[1] += piece.order.same_label;
    for (size_t t = 0; t < thresholds; ++t) sums[2 + t] += piece.order.below[t];
  }
  comm.all_reduce(std::span<int64_t>(sums), Reduction::kSum);
  rows_ = sums[0];
  same_label_ = sums[1];
  below_.assign(sums.begin() + 2, sums.end());
}

PairOrder GlobalOrder::count(Communicator& comm, ThreadPool& pool) {
  const World world = comm.world();
  const auto ranks = static_cast<size_t>(world.size), rank = static_cast<size_t>(world.rank);
  // Those that arrive, and those in the order of this rank's labels.
  const size_t own_rows = row_.size();
  const std::span<uint32_t> arrived = view(arrived_, own_rows);
  comm.all_to_all(sent_.data(), send_counts_, arrived.data(), receive_counts_, DataType::kInt32);
  const std::span<uint32_t> keys = view(sent_, own_rows);
  const auto part = [](std::span<uint32_t> all, const Piece& piece) {
    return all.subspan(static_cast<size_t>(piece.begin), piece.order.row.size());
  };
  std::vector<OrderBuffers> buffers(static_cast<size_t>(pool.threads()));
  std::array<Inversions, kPiecesPerRank> inside_runs{};
  pool.parallel_for(kPiecesPerRank, [&](int64_t p, int thread) {
    const Piece& piece = pieces_[static_cast<size_t>(p)];
    const std::span<uint32_t> own = part(keys, piece);
    OrderBuffers& own_buffers = buffers[static_cast<size_t>(thread)];
    collect(piece.arrival, arrived, own_buffers.scores);
    for (size_t i = 0; i < own.size(); ++i) own[i] = own_buffers.scores[piece.order.row[i]];
    inside_runs[static_cast<size_t>(p)] = count_inside_runs(piece.order, own, own_buffers);
  });

  // All pieces of all ranks are one sequence, distributed over score ranges.
  const RangeOf find(
      sample_keys(kSampled * kDigits, keys.size(), comm, [&](size_t i) { return keys[i]; }));
  const HugeArray<uint8_t> range_of(keys.size());
  std::vector<RangeCounts> counts(kPiecesPerRank, RangeCounts(below_.size()));
  pool.parallel_for(kPiecesPerRank, [&](int64_t p, int) {
    const Piece& piece = pieces_[static_cast<size_t>(p)];
    const std::span<const uint32_t> own = part(keys, piece);
    uint8_t* const to = range_of.data() + piece.begin;
    for (size_t i = 0; i < own.size(); ++i) to[i] = find(own[i]);
    counts[static_cast<size_t>(p)].count({to, own.size()}, piece.order.below);
  });
  RangeCounts own_counts(below_.size());
  for (const RangeCounts& piece : counts) own_counts.add(piece.flat());
  const size_t width = own_counts.flat().size();
  std::vector<int64_t> flat(ranks * width);
  comm.all_gather<int64_t>(own_counts.flat(), flat,
                           std::vector<int64_t>(ranks, std::ssize(own_counts.flat())));
  std::vector<RangeCounts> of_rank(ranks, RangeCounts(below_.size()));
  for (size_t r = 0; r < ranks; ++r)
    of_rank[r].add(std::span<const int64_t>(flat).subspan(r * width, width));

  // Pairs of different ranges: of two pieces here, of one piece as they are distributed.
  Inversions sum;
  RangeCounts before(below_.size());  // of the pieces so far
  for (size_t r = 0; r < rank; ++r) before.add(of_rank[r].flat());
  for (const RangeCounts& piece : counts) {
    int64_t above = 0;
    for (size_t d = kDigits; d-- > 0; above += before.of(d)) sum.descending += piece.of(d) * above;
    before.add(piece.flat());
  }
  for (size_t r = rank + 1; r < ranks; ++r) before.add(of_rank[r].flat());
  for (size_t t = 0; rank == 0 && t < below_.size(); ++t)
    sum.parted[t] += 2 * before.descending_across(t);
  const std::span<uint32_t> distributed = view(arrived_, keys.size());
  std::vector<std::array<uint32_t*, kDigits>> to(kPiecesPerRank);
  uint32_t* next = distributed.data();
  for (size_t d = 0; d < kDigits; ++d)
    for (size_t p = 0; p < kPiecesPerRank; ++p) {
      to[p][d] = next;
      next += counts[p].of(d);
    }
  std::array<int64_t, kPiecesPerRank> descending{};
  pool.parallel_for(kPiecesPerRank, [&](int64_t p, int) {
    const auto at = static_cast<size_t>(p);
    const std::span<const uint32_t> own = part(keys, pieces_[at]);
    const uint8_t* const range = range_of.data() + pieces_[at].begin;
    descending[at] = distribute(
        own.size(), [=](size_t i) { return size_t{range[i]}; }, [=](size_t i) { return own[i]; },
        to[at]);
  });

  // Pairs of one range: each has a rank.
  const auto first_range = [&](size_t r) { return r * kDigits / ranks; };
  std::vector<int64_t> send(ranks, 0), receive(ranks, 0);
  for (size_t r = 0; r < ranks; ++r) {
    for (size_t d = first_range(r); d < first_range(r + 1); ++d) send[r] += own_counts.of(d);
    for (size_t d = first_range(rank); d < first_range(rank + 1); ++d)
      receive[r] += of_rank[r].of(d);
  }
  const auto received = std::accumulate(receive.begin(), receive.end(), int64_t{0});
  const std::span<uint32_t> of_ranges = view(sent_, static_cast<size_t>(received));
  comm.all_to_all(distributed.data(), send, of_ranges.data(), receive, DataType::kInt32);
  const size_t own_ranges = first_range(rank + 1) - first_range(rank);
  std::vector<Inversions> of_range(own_ranges);
  pool.parallel_for(static_cast<int64_t>(own_ranges), [&](int64_t k, int thread) {
    const size_t range = first_range(rank) + static_cast<size_t>(k);
    OrderBuffers& own = buffers[static_cast<size_t>(thread)];
    own.keys.clear();
    std::vector<int64_t> places(below_.size(), 0);
    auto begin = of_ranges.begin();
    for (size_t r = 0; r < ranks; ++r) {
      auto at = begin;
      for (size_t d = first_range(rank); d < range; ++d) at += of_rank[r].of(d);
      own.keys.insert(own.keys.end(), at, at + of_rank[r].of(range));
      for (size_t t = 0; t < places.size(); ++t) places[t] += of_rank[r].before(t, range);
      begin += receive[r];
    }
    of_range[static_cast<size_t>(k)] = count_inversions(own.keys, places, own);
  });

  Inversions inside;
  for (size_t p = 0; p < kPiecesPerRank; ++p) {
    inside.add(inside_runs[p]);
    sum.descending += descending[p];
  }
  for (const Inversions& one : of_range) sum.add(one);
  std::vector<int64_t> totals{sum.descending, sum.equal, inside.descending, inside.equal};
  totals.insert(totals.end(), sum.parted.begin(), sum.parted.end());
  comm.all_reduce(std::span<int64_t>(totals), Reduction::kSum);
  Inversions all{.descending = totals[0], .equal = totals[1]};
  inside = {.descending = totals[2], .equal = totals[3]};
  std::copy(totals.begin() + 4, totals.end(), all.parted.begin());
  return pair_order(rows_, below_, same_label_, all, inside);
}

}  // namespace kt::metrics
