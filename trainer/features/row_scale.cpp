#include "trainer/features/row_scale.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "launch/base/errors.h"
#include "sharding/shard_moments.h"

namespace kt {
namespace {

constexpr int64_t kHalf = 1 << 16;  // values of half the bits
constexpr uint32_t kSign = uint32_t{1} << 31;

/// Whole numbers in the order of the values; -0 is 0.
uint32_t key_of(float value) {
  const auto bits = std::bit_cast<uint32_t>(value + 0.f);
  return bits & kSign ? ~bits : bits | kSign;
}
float value_of(uint32_t key) { return std::bit_cast<float>(key & kSign ? key & ~kSign : ~key); }

/// `visit(value)` for each row of a shard.
template <class Visit>
void for_values(const RowColumn& column, int64_t shard, Visit visit) {
  const std::vector<float>& rows = column.rows[shard];
  for (int64_t k = column.column; k < std::ssize(rows); k += column.width) visit(rows[k]);
}

int64_t rows_of(const RowColumn& column, int64_t shard) {
  return std::ssize(column.rows[shard]) / column.width;
}

/// Rows of all ranks by `bin_of(key)`, a negative one for none. Shapes: [bins]. Collective: all ranks.
template <class BinOf>
std::vector<int64_t> histogram(const RowColumn& column, int64_t bins, BinOf bin_of,
                               Communicator& comm, ThreadPool& pool) {
  std::vector<std::vector<int64_t>> of_thread(pool.threads(), std::vector<int64_t>(bins, 0));
  pool.parallel_for(std::ssize(column.rows), [&](int64_t j, int thread) {
    for_values(column, j, [&](float value) {
      const int64_t bin = bin_of(key_of(value));
      if (bin >= 0) ++of_thread[thread][bin];
    });
  });
  for (size_t t = 1; t < of_thread.size(); ++t)
    for (int64_t bin = 0; bin < bins; ++bin) of_thread[0][bin] += of_thread[t][bin];
  comm.all_reduce(std::span(of_thread[0]), Reduction::kSum);
  return std::move(of_thread[0]);
}

/// The bin that holds a place, and the place inside it.
struct Found {
  int64_t bin = 0;
  int64_t place = 0;
};
Found find(std::span<const int64_t> counts, int64_t place) {
  int64_t bin = 0;
  while (place >= counts[bin]) place -= counts[bin++];
  return {bin, place};
}

/// Collective: all ranks.
Scale standard_scale(const RowColumn& column, int64_t shards, Communicator& comm,
                     ThreadPool& pool) {
  const Moments all =
      moments_over_shards(std::ssize(column.rows), shards, comm, pool,
                          [&](int64_t j, auto&& visit) { for_values(column, j, visit); });
  return make_scale(all.mean, std::sqrt(all.squares / all.rows));
}

}  // namespace

std::vector<float> order_statistics(const RowColumn& column, std::span<const int64_t> places,
                                    Communicator& comm, ThreadPool& pool) {
  const std::vector<int64_t> upper = histogram(
      column, kHalf, [](uint32_t key) { return static_cast<int64_t>(key / kHalf); }, comm, pool);
  std::vector<Found> found;
  std::vector<int32_t> index(kHalf, -1);  // of the upper halves that hold a place
  int32_t halves = 0;
  for (const int64_t place : places) {
    found.push_back(find(upper, place));
    int32_t& k = index[found.back().bin];
    if (k < 0) k = halves++;
  }
  const std::vector<int64_t> lower = histogram(
      column, halves * kHalf,
      [&](uint32_t key) {
        const int64_t k = index[key / kHalf];
        return k < 0 ? k : k * kHalf + key % kHalf;
      },
      comm, pool);
  std::vector<float> values;
  for (const Found& of_upper : found) {
    const std::span counts = std::span(lower).subspan(index[of_upper.bin] * kHalf, kHalf);
    const Found of_lower = find(counts, of_upper.place);
    values.push_back(value_of(static_cast<uint32_t>(of_upper.bin * kHalf + of_lower.bin)));
  }
  return values;
}

Scale fit_row_scale(Scaling scaling, const RowColumn& column, int64_t shards, Communicator& comm,
                    ThreadPool& pool) {
  int64_t rows = 0;
  for (int64_t j = 0; j < std::ssize(column.rows); ++j) rows += rows_of(column, j);
  comm.all_reduce(std::span(&rows, 1), Reduction::kSum);
  if (scaling == Scaling::kNone || rows == 0) return {};
  if (scaling == Scaling::kStandard) return standard_scale(column, shards, comm, pool);
  if (scaling == Scaling::kMinMax) {
    const int64_t ends[] = {0, rows - 1};
    const std::vector<float> value = order_statistics(column, ends, comm, pool);
    return make_scale(value[0], static_cast<double>(value[1]) - value[0]);
  }
  std::vector<int64_t> places;
  for (const double q : {.25, .5, .75}) {
    const int64_t below = quantile_place(rows, q).below;
    places.push_back(below);
    places.push_back(std::min(below + 1, rows - 1));
  }
  const std::vector<float> value = order_statistics(column, places, comm, pool);
  const auto quantile = [&](double q, size_t k) {
    return quantile_place(rows, q).between(value[k], value[k + 1]);
  };
  return make_scale(quantile(.5, 2), quantile(.75, 4) - quantile(.25, 0));
}

}  // namespace kt
