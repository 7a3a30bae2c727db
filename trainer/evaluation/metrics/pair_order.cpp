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

constexpr int kDigitBits = 4;
constexpr size_t kDigits = size_t{1} << kDigitBits;
/// Label ranges of a rank, and score ranges of all: enough for the threads of a rank to share them out evenly.
constexpr size_t kPiecesPerRank = 16;

int64_t choose_two(int64_t n) { return n * (n - 1) / 2; }

// Eight lanes at a time: a register of the processors we need.
using Counts8 [[gnu::vector_size(32)]] = uint32_t;
using Lanes8 [[gnu::vector_size(32)]] = int32_t;

/// [d][e]: 1 where e < d.
alignas(32) constexpr auto kBelow = [] {
  std::array<std::array<uint32_t, kDigits>, kDigits> table{};
  for (size_t d = 0; d < kDigits; ++d)
    for (size_t e = 0; e < d; ++e) table[d][e] = 1;
  return table;
}();

/// Keys by digit, before each of some places and in all.
class DigitCounts {
 public:
  explicit DigitCounts(size_t places) : places_(places) {}

  /// Counts of the keys between places, which become those before them. Shapes: row t from place t - 1 to t.
  std::array<int64_t, kDigits>& between(size_t t) { return before_[t]; }
  void accumulate() {
    for (size_t t = 1; t <= places_; ++t)
      for (size_t d = 0; d < kDigits; ++d) before_[t][d] += before_[t - 1][d];
  }

  int64_t of(size_t d) const { return before_[places_][d]; }
  /// Of the digit, before place t.
  int64_t before(size_t t, size_t d) const { return before_[t][d]; }
  /// Pairs that place t parts, the later key with the lower digit.
  int64_t descending_across(size_t t) const {
    int64_t pairs = 0, above = 0;
    for (size_t d = kDigits; d-- > 0; above += before(t, d))
      pairs += (of(d) - before(t, d)) * above;
    return pairs;
  }
  /// Shapes: result [places + 1, kDigits].
  std::span<const int64_t> flat() const { return {before_[0].data(), (places_ + 1) * kDigits}; }
  void add(std::span<const int64_t> flat) {
    for (size_t t = 0; t <= places_; ++t)
      for (size_t d = 0; d < kDigits; ++d) before_[t][d] += flat[t * kDigits + d];
  }

 private:
  size_t places_;
  std::array<std::array<int64_t, kDigits>, kMostThresholds + 1> before_{};
};

template <class DigitOf>
DigitCounts count_digits(std::span<const uint32_t> keys, std::span<const int64_t> places,
                         DigitOf&& digit_of) {
  DigitCounts counts(places.size());
  size_t i = 0;
  for (size_t t = 0; t <= places.size(); ++t) {
    const size_t end = t < places.size() ? static_cast<size_t>(places[t]) : keys.size();
    std::array<int64_t, kDigits>& between = counts.between(t);
    for (; i < end; ++i) ++between[digit_of(keys[i])];
  }
  counts.accumulate();
  return counts;
}

/// Appends each key to the range of its digit; returns the pairs whose digits descend.
template <class DigitOf>
int64_t distribute(std::span<const uint32_t> keys, std::array<uint32_t*, kDigits>& to,
                   DigitOf&& digit_of) {
  // [d] keys so far with a digit above d: in two registers, and in memory to read one of them.
  Counts8 low{}, high{};
  alignas(32) std::array<uint32_t, kDigits> above;
  int64_t descending = 0;
  for (const uint32_t key : keys) {
    const size_t digit = digit_of(key);
    std::memcpy(above.data(), &low, sizeof(low));
    std::memcpy(above.data() + 8, &high, sizeof(high));
    descending += above[digit];
    Counts8 below;
    std::memcpy(&below, kBelow[digit].data(), sizeof(below));
    low += below;
    std::memcpy(&below, kBelow[digit].data() + 8, sizeof(below));
    high += below;
    *to[digit]++ = key;
  }
  return descending;
}

constexpr size_t kLeaf = 48;

/// Of few pairs, each in some lane.
struct LaneInversions {
  Lanes8 descending{}, equal{};
  std::array<Lanes8, kMostThresholds> parted{};

  void add_to(Inversions& sum, size_t places) const {
    for (size_t lane = 0; lane < 8; ++lane) {
      sum.descending += descending[lane];
      sum.equal += equal[lane];
      for (size_t t = 0; t < places; ++t) sum.parted[t] += parted[t][lane];
    }
  }
};

/// Every pair of a few keys.
void count_leaf(std::span<const uint32_t> keys, std::span<const int64_t> places,
                LaneInversions& sum) {
  constexpr Lanes8 kLane{0, 1, 2, 3, 4, 5, 6, 7};
  alignas(32) std::array<int32_t, kLeaf> ordered{};  // signed, as comparisons of lanes are
  for (size_t i = 0; i < keys.size(); ++i) ordered[i] = static_cast<int32_t>(keys[i] ^ 0x80000000u);

  alignas(32) std::array<Lanes8, kLeaf + 1> halves;  // [i] with the keys of this block up to i
  for (size_t block = 0; block < keys.size(); block += 8) {
    Lanes8 lanes;
    std::memcpy(&lanes, ordered.data() + block, sizeof(lanes));
    const auto first = static_cast<int32_t>(block);
    Lanes8 descending{}, equal{};
    for (size_t i = block; i < keys.size(); ++i) {
      halves[i] = descending + descending + equal;
      const Lanes8 before = kLane < static_cast<int32_t>(i) - first;
      descending -= (lanes > ordered[i]) & before;
      equal -= (lanes == ordered[i]) & before;
    }
    halves[keys.size()] = descending + descending + equal;
    sum.descending += descending;
    sum.equal += equal;
    for (size_t t = 0; t < places.size(); ++t) {
      const Lanes8 early = kLane < static_cast<int32_t>(places[t]) - first;
      const size_t from = std::max(block, static_cast<size_t>(places[t]));
      sum.parted[t] += (halves[keys.size()] - halves[from]) & early;
    }
  }
}

void count_range(std::span<uint32_t> keys, std::span<const int64_t> places,
                 std::span<uint32_t> scratch, Inversions& sum) {
  if (keys.size() <= kLeaf) {
    LaneInversions lanes;
    count_leaf(keys, places, lanes);
    return lanes.add_to(sum, places.size());
  }
  uint32_t least = keys[0], most = keys[0];
  for (const uint32_t key : keys) {
    least = std::min(least, key);
    most = std::max(most, key);
  }
  const auto n = std::ssize(keys);
  if (least == most) {
    sum.equal += choose_two(n);
    for (size_t t = 0; t < places.size(); ++t) sum.parted[t] += places[t] * (n - places[t]);
    return;
  }
  const int shift = std::max(0, static_cast<int>(std::bit_width(most - least)) - kDigitBits);
  const auto digit_of = [=](uint32_t key) { return static_cast<size_t>((key - least) >> shift); };
  const DigitCounts counts = count_digits(keys, places, digit_of);
  std::array<uint32_t*, kDigits> to{};
  uint32_t* next = scratch.data();
  for (size_t d = 0; d < kDigits; ++d) {
    to[d] = next;
    next += counts.of(d);
  }
  sum.descending += distribute(keys, to, digit_of);
  for (size_t t = 0; t < places.size(); ++t) sum.parted[t] += 2 * counts.descending_across(t);
  size_t begin = 0;
  LaneInversions lanes;
  std::array<int64_t, kMostThresholds> inner;
  const std::span<const int64_t> inner_places(inner.data(), places.size());
  for (size_t d = 0; d < kDigits; ++d) {
    const auto size = static_cast<size_t>(counts.of(d));
    for (size_t t = 0; t < places.size(); ++t) inner[t] = counts.before(t, d);
    const std::span<uint32_t> range = scratch.subspan(begin, size);
    if (size > kLeaf)
      count_range(range, inner_places, keys.subspan(begin, size), sum);
    else if (size > 1)
      count_leaf(range, inner_places, lanes);
    begin += size;
  }
  lanes.add_to(sum, places.size());
}

/// Which of the ranges between ascending keys a key is in.
class Ranges {
 public:
  /// Ranges that hold about as many of all ranks' keys each. Shapes: key_of(i) key i < n of this rank's, called for
  /// some, ascending. Collective: all ranks.
  template <class KeyOf>
  Ranges(size_t ranges, size_t n, Communicator& comm, KeyOf&& key_of) {
    auto total = static_cast<int64_t>(n);
    comm.all_reduce(std::span(&total, 1), Reduction::kSum);
    const size_t stride = static_cast<size_t>(total) / (128 * ranges) + 1;
    std::vector<uint64_t> own;
    for (size_t i = 0; i < n; i += stride) own.push_back(key_of(i));
    std::vector<uint64_t> sample = gather_to_all<uint64_t>(own, comm);
    std::sort(sample.begin(), sample.end());
    first_.assign(std::bit_ceil(ranges) - 1, ~uint64_t{0});
    for (size_t r = 1; r < ranges && !sample.empty(); ++r)
      first_[r - 1] = sample[sample.size() * r / ranges];
  }

  /// A binary search without branches, which nobody could predict. No key is the largest integer.
  size_t find(uint64_t key) const {
    size_t at = 0;
    for (size_t half = (first_.size() + 1) / 2; half > 0; half /= 2)
      at += first_[at + half - 1] <= key ? half : 0;
    return at;
  }

 private:
  std::vector<uint64_t>
      first_;  // key of each range but the first, as many as a power of two less one
};

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

/// Pairs inside the runs of equal labels: their order says nothing. `keys` is kept.
Inversions count_inside_runs(const LabelOrder& order, std::span<const uint32_t> keys,
                             OrderBuffers& buffers) {
  Inversions sum;
  for (const Run& run : order.runs) {
    buffers.run.assign(keys.begin() + run.begin, keys.begin() + run.end);
    buffers.scratch.resize(std::max(buffers.scratch.size(), buffers.run.size()));
    count_range(buffers.run, {}, std::span(buffers.scratch).first(buffers.run.size()), sum);
  }
  return sum;
}

}  // namespace

Inversions count_inversions(std::span<uint32_t> keys, std::span<const int64_t> places,
                            std::span<uint32_t> scratch) {
  Inversions sum;
  count_range(keys, places, scratch, sum);
  return sum;
}

LabelOrder order_labels(std::span<const double> labels, std::span<const double> thresholds,
                        OrderBuffers& buffers) {
  LabelOrder order;
  order.row.resize(labels.size());
  buffers.order.sort(labels, order.row, buffers.runs);
  order.runs = buffers.runs;
  for (const Run& run : order.runs) order.same_label += choose_two(run.end - run.begin);
  for (const double threshold : thresholds)
    order.below.push_back(
        std::partition_point(order.row.begin(), order.row.end(),
                             [&](uint32_t row) { return labels[row] < threshold; }) -
        order.row.begin());
  return order;
}

PairOrder count_pair_order(const LabelOrder& labels, std::span<const float> scores,
                           OrderBuffers& buffers) {
  const size_t n = labels.row.size();
  buffers.keys.resize(n);
  for (size_t i = 0; i < n; ++i) buffers.keys[i] = order_key(scores[labels.row[i]]);
  const Inversions inside = count_inside_runs(labels, buffers.keys, buffers);
  buffers.scratch.resize(std::max(buffers.scratch.size(), n));
  const Inversions all =
      count_inversions(buffers.keys, labels.below, std::span(buffers.scratch).first(n));
  return pair_order(static_cast<int64_t>(n), labels.below, labels.same_label, all, inside);
}

GlobalOrder::GlobalOrder(std::span<const std::span<const double>> labels,
                         std::span<const double> thresholds, Communicator& comm, ThreadPool& pool) {
  KT_CHECK(thresholds.size() <= kMostThresholds);
  size_t rows = 0;
  for (const std::span<const double> part : labels) rows += part.size();
  KT_CHECK(rows <= UINT32_MAX);
  const World world = comm.world();
  const auto ranks = static_cast<size_t>(world.size);
  const size_t pieces = kPiecesPerRank * ranks;
  KT_CHECK(pieces - 1 <= UINT16_MAX);
  size_t part = 0, part_begin = 0;
  const Ranges ranges(pieces, rows, comm, [&](size_t i) {
    for (; i - part_begin >= labels[part].size(); ++part) part_begin += labels[part].size();
    return order_key(labels[part][i - part_begin]);
  });
  const auto for_each_label = [&](auto&& visit) {
    size_t i = 0;
    for (const std::span<const double> one : labels)
      for (const double label : one) visit(i++, label);
  };

  std::vector<uint16_t> piece_of(rows);
  std::vector<int64_t> counts(pieces, 0);  // rows of this rank in each piece
  for_each_label([&](size_t i, double label) {
    piece_of[i] = static_cast<uint16_t>(ranges.find(order_key(label)));
    ++counts[piece_of[i]];
  });
  std::vector<int64_t> next(pieces, 0);
  std::exclusive_scan(counts.begin(), counts.end(), next.begin(), int64_t{0});
  send_row_.resize(rows);
  std::vector<double> sent(rows);
  for_each_label([&](size_t i, double label) {
    const auto at = static_cast<size_t>(next[piece_of[i]]++);
    send_row_[at] = static_cast<uint32_t>(i);
    sent[at] = label;
  });

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
  std::vector<double> arrived(static_cast<size_t>(received));
  comm.all_to_all<double>(sent, send_counts_, arrived, receive_counts_);

  // Where each rank's part of each piece arrived.
  pieces_.resize(kPiecesPerRank);
  std::vector<std::array<int64_t, 2>> parts(kPiecesPerRank * ranks);  // [pieces of the rank, ranks]
  int64_t arrival = 0;
  for (size_t from = 0; from < ranks; ++from)
    for (size_t p = 0; p < kPiecesPerRank; ++p) {
      const int64_t size = own_counts[from * kPiecesPerRank + p];
      parts[p * ranks + from] = {arrival, arrival + size};
      arrival += size;
    }
  std::vector<OrderBuffers> buffers(static_cast<size_t>(pool.threads()));
  pool.parallel_for(kPiecesPerRank, [&](int64_t piece, int thread) {
    OrderBuffers& own = buffers[static_cast<size_t>(thread)];
    own.labels.clear();
    std::vector<uint32_t>& place = own.keys;
    place.clear();
    for (size_t from = 0; from < ranks; ++from) {
      const auto [begin, end] = parts[static_cast<size_t>(piece) * ranks + from];
      for (int64_t i = begin; i < end; ++i) {
        own.labels.push_back(arrived[static_cast<size_t>(i)]);
        place.push_back(static_cast<uint32_t>(i));
      }
    }
    LabelOrder order = order_labels(own.labels, thresholds, own);
    for (uint32_t& row : order.row) row = place[row];
    pieces_[static_cast<size_t>(piece)].order = std::move(order);
  });

  // Equal labels are of one piece, so runs never go on in another.
  std::vector<int64_t> sums(2 + thresholds.size(), 0);
  for (Piece& piece : pieces_) {
    piece.begin = sums[0];
    sums[0] += std::ssize(piece.order.row);
    sums[1] += piece.order.same_label;
    for (size_t t = 0; t < thresholds.size(); ++t) sums[2 + t] += piece.order.below[t];
  }
  comm.all_reduce(std::span<int64_t>(sums), Reduction::kSum);
  rows_ = sums[0];
  same_label_ = sums[1];
  below_.assign(sums.begin() + 2, sums.end());
}

PairOrder GlobalOrder::count(std::span<const float> scores, Communicator& comm,
                             ThreadPool& pool) const {
  const World world = comm.world();
  const auto ranks = static_cast<size_t>(world.size), rank = static_cast<size_t>(world.rank);
  std::vector<float> sent(send_row_.size());
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = scores[send_row_[i]];
  std::vector<float> arrived(static_cast<size_t>(
      std::accumulate(receive_counts_.begin(), receive_counts_.end(), int64_t{0})));
  comm.all_to_all<float>(sent, send_counts_, arrived, receive_counts_);

  // The scores of this rank's labels, in their order.
  std::vector<uint32_t> keys(arrived.size());
  const auto part = [](std::vector<uint32_t>& all, const Piece& piece) {
    return std::span(all).subspan(static_cast<size_t>(piece.begin), piece.order.row.size());
  };
  std::vector<OrderBuffers> buffers(static_cast<size_t>(pool.threads()));
  std::array<Inversions, kPiecesPerRank> inside_runs{};
  pool.parallel_for(kPiecesPerRank, [&](int64_t p, int thread) {
    const Piece& piece = pieces_[static_cast<size_t>(p)];
    const std::span<uint32_t> own = part(keys, piece);
    for (size_t i = 0; i < own.size(); ++i) own[i] = order_key(arrived[piece.order.row[i]]);
    inside_runs[static_cast<size_t>(p)] =
        count_inside_runs(piece.order, own, buffers[static_cast<size_t>(thread)]);
  });

  // All pieces of all ranks are one sequence, distributed over score ranges.
  const Ranges ranges(kDigits, keys.size(), comm, [&](size_t i) { return keys[i]; });
  const auto digit_of = [&](uint32_t key) { return ranges.find(key); };
  const size_t width = (below_.size() + 1) * kDigits;  // of a piece's counts
  std::vector<DigitCounts> own_counts(kPiecesPerRank, DigitCounts(below_.size()));
  pool.parallel_for(kPiecesPerRank, [&](int64_t p, int) {
    const Piece& piece = pieces_[static_cast<size_t>(p)];
    own_counts[static_cast<size_t>(p)] =
        count_digits(part(keys, piece), piece.order.below, digit_of);
  });
  std::vector<int64_t> flat, all_flat(ranks * kPiecesPerRank * width);
  for (const DigitCounts& counts : own_counts)
    flat.insert(flat.end(), counts.flat().begin(), counts.flat().end());
  comm.all_gather<int64_t>(flat, all_flat, std::vector<int64_t>(ranks, std::ssize(flat)));
  std::vector<DigitCounts> counts(ranks * kPiecesPerRank, DigitCounts(below_.size()));
  std::vector<DigitCounts> of_rank(ranks, DigitCounts(below_.size()));
  for (size_t p = 0; p < counts.size(); ++p) {
    counts[p].add(std::span<const int64_t>(all_flat).subspan(p * width, width));
    of_rank[p / kPiecesPerRank].add(counts[p].flat());
  }

  // Pairs of different ranges: of two pieces here, of one piece as they are distributed.
  Inversions sum;
  DigitCounts before(below_.size());  // of the pieces so far
  for (size_t p = 0; p < counts.size(); ++p) {
    if (p / kPiecesPerRank == rank) {
      int64_t above = 0;
      for (size_t d = kDigits; d-- > 0; above += before.of(d))
        sum.descending += counts[p].of(d) * above;
    }
    before.add(counts[p].flat());
  }
  for (size_t t = 0; rank == 0 && t < below_.size(); ++t)
    sum.parted[t] += 2 * before.descending_across(t);
  std::vector<uint32_t> distributed(keys.size());
  std::array<std::array<uint32_t*, kDigits>, kPiecesPerRank> to;
  uint32_t* next = distributed.data();
  for (size_t d = 0; d < kDigits; ++d)
    for (size_t p = 0; p < kPiecesPerRank; ++p) {
      to[p][d] = next;
      next += own_counts[p].of(d);
    }
  std::array<int64_t, kPiecesPerRank> descending{};
  pool.parallel_for(kPiecesPerRank, [&](int64_t p, int) {
    const auto at = static_cast<size_t>(p);
    descending[at] = distribute(part(keys, pieces_[at]), to[at], digit_of);
  });

  // Pairs of one range: each has a rank.
  const auto first_digit = [&](size_t r) { return r * kDigits / ranks; };
  std::vector<int64_t> send(ranks, 0), receive(ranks, 0);
  for (size_t r = 0; r < ranks; ++r) {
    for (size_t d = first_digit(r); d < first_digit(r + 1); ++d) send[r] += of_rank[rank].of(d);
    for (size_t d = first_digit(rank); d < first_digit(rank + 1); ++d)
      receive[r] += of_rank[r].of(d);
  }
  keys.resize(static_cast<size_t>(std::accumulate(receive.begin(), receive.end(), int64_t{0})));
  comm.all_to_all(distributed.data(), send, keys.data(), receive, DataType::kInt32);
  const size_t digits = first_digit(rank + 1) - first_digit(rank);
  std::vector<Inversions> of_digit(digits);
  pool.parallel_for(static_cast<int64_t>(digits), [&](int64_t k, int thread) {
    const size_t digit = first_digit(rank) + static_cast<size_t>(k);
    OrderBuffers& own = buffers[static_cast<size_t>(thread)];
    own.keys.clear();
    std::vector<int64_t> places(below_.size(), 0);
    auto begin = keys.begin();
    for (size_t r = 0; r < ranks; ++r) {
      auto at = begin;
      for (size_t d = first_digit(rank); d < digit; ++d) at += of_rank[r].of(d);
      own.keys.insert(own.keys.end(), at, at + of_rank[r].of(digit));
      for (size_t t = 0; t < places.size(); ++t) places[t] += of_rank[r].before(t, digit);
      begin += receive[r];
    }
    own.scratch.resize(std::max(own.scratch.size(), own.keys.size()));
    of_digit[static_cast<size_t>(k)] =
        count_inversions(own.keys, places, std::span(own.scratch).first(own.keys.size()));
  });

  Inversions inside;
  for (size_t p = 0; p < kPiecesPerRank; ++p) {
    inside.add(inside_runs[p]);
    sum.descending += descending[p];
  }
  for (const Inversions& one : of_digit) sum.add(one);
  std::vector<int64_t> totals{sum.descending, sum.equal, inside.descending, inside.equal};
  totals.insert(totals.end(), sum.parted.begin(), sum.parted.end());
  comm.all_reduce(std::span<int64_t>(totals), Reduction::kSum);
  Inversions all{.descending = totals[0], .equal = totals[1]};
  inside = {.descending = totals[2], .equal = totals[3]};
  std::copy(totals.begin() + 4, totals.end(), all.parted.begin());
  return pair_order(rows_, below_, same_label_, all, inside);
}

}  // namespace kt::metrics
