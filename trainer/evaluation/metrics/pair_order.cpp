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

/// Rows of the two classes by digit.
struct DigitCounts {
  std::array<int64_t, kDigits> negative{}, positive{};

  int64_t of(size_t d) const { return negative[d] + positive[d]; }
  /// Pairs of a negative and a positive with a lower digit.
  int64_t descending_across() const {
    int64_t pairs = 0, above = 0;
    for (size_t d = kDigits; d-- > 0; above += negative[d]) pairs += positive[d] * above;
    return pairs;
  }
};

template <class DigitOf>
DigitCounts count_digits(std::span<const uint32_t> keys, int64_t negatives, DigitOf&& digit_of) {
  DigitCounts counts;
  const auto middle = static_cast<size_t>(negatives);
  for (size_t i = 0; i < middle; ++i) ++counts.negative[digit_of(keys[i])];
  for (size_t i = middle; i < keys.size(); ++i) ++counts.positive[digit_of(keys[i])];
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
  Lanes8 descending{}, equal{}, descending_across{}, equal_across{};

  void add_to(Inversions& sum) const {
    for (size_t lane = 0; lane < 8; ++lane) {
      sum.descending += descending[lane];
      sum.equal += equal[lane];
      sum.descending_across += descending_across[lane];
      sum.equal_across += equal_across[lane];
    }
  }
};

/// Every pair of a few keys, of both classes or of one.
template <bool kBoth>
void count_leaf(std::span<const uint32_t> keys, size_t negatives, LaneInversions& sum) {
  constexpr Lanes8 kLane{0, 1, 2, 3, 4, 5, 6, 7};
  alignas(32) std::array<int32_t, kLeaf> ordered{};  // signed, as comparisons of lanes are
  for (size_t i = 0; i < keys.size(); ++i) ordered[i] = static_cast<int32_t>(keys[i] ^ 0x80000000u);

  LaneInversions own = sum;
  for (size_t block = 0; block < keys.size(); block += 8) {
    Lanes8 lanes;
    std::memcpy(&lanes, ordered.data() + block, sizeof(lanes));
    const auto first = static_cast<int32_t>(block);
    const Lanes8 negative = kLane < static_cast<int32_t>(negatives) - first;
    for (size_t i = block; i < keys.size(); ++i) {
      const Lanes8 before = kLane < static_cast<int32_t>(i) - first;
      const Lanes8 greater = (lanes > ordered[i]) & before;
      const Lanes8 same = (lanes == ordered[i]) & before;
      own.descending -= greater;
      own.equal -= same;
      if constexpr (kBoth) {
        const Lanes8 across = i >= negatives ? negative : Lanes8{};
        own.descending_across -= greater & across;
        own.equal_across -= same & across;
      }
    }
  }
  sum = own;
}

void count_leaf(std::span<const uint32_t> keys, int64_t negatives, LaneInversions& sum) {
  if (negatives > 0 && negatives < std::ssize(keys))
    count_leaf<true>(keys, static_cast<size_t>(negatives), sum);
  else
    count_leaf<false>(keys, 0, sum);
}

void count_range(std::span<uint32_t> keys, int64_t negatives, std::span<uint32_t> scratch,
                 Inversions& sum) {
  if (keys.size() <= kLeaf) {
    LaneInversions lanes;
    count_leaf(keys, negatives, lanes);
    return lanes.add_to(sum);
  }
  uint32_t least = keys[0], most = keys[0];
  for (const uint32_t key : keys) {
    least = std::min(least, key);
    most = std::max(most, key);
  }
  const auto n = std::ssize(keys);
  if (least == most) {
    sum.equal += choose_two(n);
    sum.equal_across += negatives * (n - negatives);
    return;
  }
  const int shift = std::max(0, static_cast<int>(std::bit_width(most - least)) - kDigitBits);
  const auto digit_of = [=](uint32_t key) { return static_cast<size_t>((key - least) >> shift); };
  const DigitCounts counts = count_digits(keys, negatives, digit_of);
  std::array<uint32_t*, kDigits> to{};
  uint32_t* next = scratch.data();
  for (size_t d = 0; d < kDigits; ++d) {
    to[d] = next;
    next += counts.of(d);
  }
  sum.descending += distribute(keys, to, digit_of);
  sum.descending_across += counts.descending_across();
  size_t begin = 0;
  LaneInversions lanes;
  for (size_t d = 0; d < kDigits; ++d) {
    const auto size = static_cast<size_t>(counts.of(d));
    const std::span<uint32_t> range = scratch.subspan(begin, size);
    if (size > kLeaf)
      count_range(range, counts.negative[d], keys.subspan(begin, size), sum);
    else if (size > 1)
      count_leaf(range, counts.negative[d], lanes);
    begin += size;
  }
  lanes.add_to(sum);
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

PairOrder pair_order(int64_t rows, int64_t negatives, int64_t same_label, const Inversions& all,
                     const Inversions& inside_runs) {
  PairOrder order;
  order.negatives = negatives;
  order.positives = rows - negatives;
  order.pairs = choose_two(rows) - same_label;
  order.tied = all.equal - inside_runs.equal;
  order.alike = order.pairs - order.tied - (all.descending - inside_runs.descending);
  order.positive_tied = all.equal_across;
  order.right = order.positives * order.negatives - all.descending_across - all.equal_across;
  return order;
}

/// Pairs inside the runs of equal labels: their order says nothing. `keys` is kept.
Inversions count_inside_runs(const LabelOrder& order, std::span<const uint32_t> keys,
                             OrderBuffers& buffers) {
  Inversions sum;
  for (const Run& run : order.runs) {
    buffers.run.assign(keys.begin() + run.begin, keys.begin() + run.end);
    buffers.scratch.resize(std::max(buffers.scratch.size(), buffers.run.size()));
    count_range(buffers.run, 0, std::span(buffers.scratch).first(buffers.run.size()), sum);
  }
  return sum;
}

}  // namespace

Inversions count_inversions(std::span<uint32_t> keys, int64_t negatives,
                            std::span<uint32_t> scratch) {
  Inversions sum;
  count_range(keys, negatives, scratch, sum);
  return sum;
}

LabelOrder order_labels(std::span<const double> labels, double positive_from,
                        OrderBuffers& buffers) {
  LabelOrder order;
  order.row.resize(labels.size());
  buffers.order.sort(labels, order.row, buffers.runs);
  order.runs = buffers.runs;
  for (const Run& run : order.runs) order.same_label += choose_two(run.end - run.begin);
  order.negatives =
      std::partition_point(order.row.begin(), order.row.end(),
                           [&](uint32_t row) { return labels[row] < positive_from; }) -
      order.row.begin();
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
      count_inversions(buffers.keys, labels.negatives, std::span(buffers.scratch).first(n));
  return pair_order(static_cast<int64_t>(n), labels.negatives, labels.same_label, all, inside);
}

GlobalOrder::GlobalOrder(std::span<const std::span<const double>> labels, double positive_from,
                         Communicator& comm, ThreadPool& pool) {
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
    LabelOrder order = order_labels(own.labels, positive_from, own);
    for (uint32_t& row : order.row) row = place[row];
    pieces_[static_cast<size_t>(piece)].order = std::move(order);
  });

  // Equal labels are of one piece, so runs never go on in another.
  std::array<int64_t, 3> sums{};
  for (Piece& piece : pieces_) {
    piece.begin = sums[0];
    sums[0] += std::ssize(piece.order.row);
    sums[1] += piece.order.negatives;
    sums[2] += piece.order.same_label;
  }
  comm.all_reduce(std::span<int64_t>(sums), Reduction::kSum);
  rows_ = sums[0];
  negatives_ = sums[1];
  same_label_ = sums[2];
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
  std::array<DigitCounts, kPiecesPerRank> own_counts;
  pool.parallel_for(kPiecesPerRank, [&](int64_t p, int) {
    const Piece& piece = pieces_[static_cast<size_t>(p)];
    own_counts[static_cast<size_t>(p)] =
        count_digits(part(keys, piece), piece.order.negatives, digit_of);
  });
  constexpr size_t kWidth = 2 * kDigits * kPiecesPerRank;
  std::vector<int64_t> flat, all_flat(ranks * kWidth);
  for (const DigitCounts& counts : own_counts) {
    flat.insert(flat.end(), counts.negative.begin(), counts.negative.end());
    flat.insert(flat.end(), counts.positive.begin(), counts.positive.end());
  }
  comm.all_gather<int64_t>(flat, all_flat, std::vector<int64_t>(ranks, kWidth));
  std::vector<DigitCounts> counts(ranks * kPiecesPerRank), of_rank(ranks);
  for (size_t p = 0; p < counts.size(); ++p)
    for (size_t d = 0; d < kDigits; ++d) {
      counts[p].negative[d] = all_flat[2 * kDigits * p + d];
      counts[p].positive[d] = all_flat[2 * kDigits * p + kDigits + d];
      of_rank[p / kPiecesPerRank].negative[d] += counts[p].negative[d];
      of_rank[p / kPiecesPerRank].positive[d] += counts[p].positive[d];
    }

  // Pairs of different ranges: of two pieces here, of one piece as they are distributed.
  Inversions sum;
  DigitCounts before;  // of the pieces so far
  for (size_t p = 0; p < counts.size(); ++p) {
    if (p / kPiecesPerRank == rank) {
      int64_t above = 0;
      for (size_t d = kDigits; d-- > 0; above += before.of(d))
        sum.descending += counts[p].of(d) * above;
    }
    for (size_t d = 0; d < kDigits; ++d) {
      before.negative[d] += counts[p].negative[d];
      before.positive[d] += counts[p].positive[d];
    }
  }
  if (rank == 0) sum.descending_across += before.descending_across();
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
    int64_t negatives = 0;
    auto begin = keys.begin();
    for (size_t r = 0; r < ranks; ++r) {
      auto at = begin;
      for (size_t d = first_digit(rank); d < digit; ++d) at += of_rank[r].of(d);
      own.keys.insert(own.keys.end(), at, at + of_rank[r].of(digit));
      negatives += of_rank[r].negative[digit];
      begin += receive[r];
    }
    own.scratch.resize(std::max(own.scratch.size(), own.keys.size()));
    of_digit[static_cast<size_t>(k)] =
        count_inversions(own.keys, negatives, std::span(own.scratch).first(own.keys.size()));
  });

  Inversions inside;
  for (size_t p = 0; p < kPiecesPerRank; ++p) {
    inside.add(inside_runs[p]);
    sum.descending += descending[p];
  }
  for (const Inversions& one : of_digit) sum.add(one);
  std::array<int64_t, 6> totals{sum.descending,   sum.equal,         sum.descending_across,
                                sum.equal_across, inside.descending, inside.equal};
  comm.all_reduce(std::span<int64_t>(totals), Reduction::kSum);
  return pair_order(rows_, negatives_, same_label_, {totals[0], totals[1], totals[2], totals[3]},
                    {totals[4], totals[5], 0, 0});
}

}  // namespace kt::metrics
