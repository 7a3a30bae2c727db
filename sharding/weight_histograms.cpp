#include "sharding/weight_histograms.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "sharding/gather_shards.h"

namespace kt {
namespace {

/// Of a block.
struct Moments {
  double least = std::numeric_limits<double>::infinity();
  double largest = -std::numeric_limits<double>::infinity();
  double sum = 0, squares = 0;
};
constexpr int64_t kNumbers = 4;  // of a block

using Counts = std::array<int64_t, float_buckets::kCount>;

Moments count_block(std::span<const float> values, Counts& counts) {
  Moments moments;
  for (const float value : values) {
    ++counts[float_buckets::of(value)];
    const auto number = static_cast<double>(value);
    moments.least = std::min(moments.least, number);
    moments.largest = std::max(moments.largest, number);
    moments.sum += number;
    moments.squares += number * number;
  }
  return moments;
}

std::vector<Histogram::Bucket> buckets_of(const Counts& counts) {
  std::vector<Histogram::Bucket> buckets;
  for (int64_t b = 0; b < std::ssize(counts); ++b) {
    if (counts[b] > 0) {
      // The empty ones before it, but for the first, which begins at the least number.
      if (b > 0 && counts[b - 1] == 0 && !buckets.empty())
        buckets.push_back({float_buckets::end_of(b - 1), 0});
      buckets.push_back({float_buckets::end_of(b), counts[b]});
    }
  }
  return buckets;
}

Histogram histogram_of(const ParameterArray& array, Range shards, Communicator& comm,
                       ThreadPool& pool) {
  std::vector<Counts> of_thread(pool.threads(), Counts{});
  std::vector<double> own(shards.size() * kNumbers);
  pool.parallel_for(shards.size(), [&](int64_t k, int thread) {
    const int64_t begin = array.block_begin[shards.begin + k];
    const int64_t end = array.block_begin[shards.begin + k + 1];
    const auto values =
        std::span(array.value)
            .subspan((begin - array.held.begin) * array.spec.cols, (end - begin) * array.spec.cols);
    const auto [least, largest, sum, squares] = count_block(values, of_thread[thread]);
    std::ranges::copy(std::array{least, largest, sum, squares}, own.begin() + k * kNumbers);
  });
  Counts& counts = of_thread[0];
  for (size_t thread = 1; thread < of_thread.size(); ++thread)
    for (size_t b = 0; b < counts.size(); ++b) counts[b] += of_thread[thread][b];
  comm.all_reduce(std::span<int64_t>(counts), Reduction::kSum);

  const auto blocks = std::ssize(array.block_begin) - 1;
  const std::vector<double> all = gather_shards<double>(comm, own, blocks, kNumbers);
  Moments moments;
  for (int64_t block = 0; block < blocks; ++block) {
    const double* const of = all.data() + block * kNumbers;
    moments.least = std::min(moments.least, of[0]);
    moments.largest = std::max(moments.largest, of[1]);
    moments.sum += of[2];
    moments.squares += of[3];
  }
  return {moments.least, moments.largest, moments.sum, moments.squares, buckets_of(counts)};
}

}  // namespace

std::vector<std::pair<std::string, Histogram>> weight_histograms(const Parameters& parameters,
                                                                 Communicator& comm,
                                                                 ThreadPool& pool) {
  std::vector<std::pair<std::string, Histogram>> histograms;
  for (const ParameterArray& array : parameters.arrays)
    if (!is_columns(array.spec.kind) && array.spec.rows * array.spec.cols > 0)
      histograms.emplace_back(array.spec.name,
                              histogram_of(array, parameters.shards(), comm, pool));
  return histograms;
}

}  // namespace kt
