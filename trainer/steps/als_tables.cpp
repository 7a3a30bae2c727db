#include "trainer/steps/als_tables.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "models/als/row_solver.h"
#include "sharding/gather_shards.h"
#include "sharding/tree_sum.h"

namespace kt {
namespace {

class HostAlsTables final : public AlsTables {
 public:
  HostAlsTables(const AlsFit& fit, Parameters& parameters, const Rows& rows, Communicator& comm,
                ThreadPool& pool)
      : fit_(fit),
        parameters_(parameters),
        rows_(rows),
        comm_(comm),
        pool_(pool),
        width_(parameters.find(rows[0].array).spec.cols) {}

  void publish(Side side) override {
    ParameterArray& array = array_of(side);
    std::vector<float>& table = tables_[index(side)];
    table = gather_blocks<float>(comm_, array.rows(array.value, array.owned), array.block_begin,
                                 width_);
    std::copy_n(table.begin() + array.held.begin * width_, array.value.size(),
                array.value.begin());  // a replica holds other ranks' rows as well
  }

  Summary summary(Side side) override {
    Summary found{.gram = gram_of(side, false), .gram_of_tested = {}, .squares = {}};
    if (fit_.exclude_block) found.gram_of_tested = gram_of(side, true);
    const std::vector<float>& table = tables_[index(side)];
    const Range own = rows_[index(side)].pairs.rows;
    for (int64_t row = own.begin; row < own.end; ++row) {
      double squares = 0;
      for (int64_t c = row * width_; c < (row + 1) * width_; ++c)
        squares += static_cast<double>(table[c]) * static_cast<double>(table[c]);
      found.squares.push_back(squares);
    }
    return found;
  }

  std::optional<std::vector<double>> solve(Side side, std::span<const double> gram,
                                           std::span<const double> gram_of_tested) override {
    std::vector<RowSolver> solvers;
    for (int thread = 0; thread < pool_.threads(); ++thread)
      solvers.emplace_back(width_, fit_.block, parameters_.simd);
    const auto& [_, pairs, ridge, tested] = rows_[index(side)];
    const float* other = tables_[1 - index(side)].data();
    ParameterArray& array = array_of(side);
    float* rows = array.rows(array.value, array.owned).data();
    std::vector<double> losses(pairs.rows.size());
    std::atomic<bool> solvable = true;
    pool_.parallel_for(pairs.rows.size(), [&](int64_t k, int thread) {
      const int64_t row = pairs.rows.begin + k;
      const auto loss = solvers[thread].solve({.pairs = pairs.of(row),
                                               .table = other,
                                               .gram = tested[row] ? gram_of_tested : gram,
                                               .ridge = ridge[k]},
                                              rows + k * width_);
      if (loss)
        losses[k] = *loss;
      else
        solvable = false;
    });
    if (!solvable) return std::nullopt;
    return losses;
  }

 private:
  static size_t index(Side side) { return static_cast<size_t>(side); }
  ParameterArray& array_of(Side side) { return parameters_.find(rows_[index(side)].array); }
  std::vector<double> gram_of(Side side, bool tested_alone);

  const AlsFit& fit_;
  Parameters& parameters_;
  const Rows& rows_;
  Communicator& comm_;
  ThreadPool& pool_;
  const int64_t width_;
  std::vector<float> tables_[2];  // [rows, width]
};

std::vector<double> HostAlsTables::gram_of(Side side, bool tested_alone) {
  const std::vector<int64_t>& begin = array_of(side).block_begin;
  const std::vector<float>& table = tables_[index(side)];
  const int64_t blocks = std::ssize(begin) - 1;
  std::vector<std::vector<double>> leaves(blocks, std::vector<double>(width_ * width_, 0));
  pool_.parallel_for(blocks, [&](int64_t block, int) {
    for (int64_t row = begin[block]; row < begin[block + 1]; ++row) {
      if (tested_alone && !rows_[index(side)].tested[row]) continue;
      const float* x = &table[row * width_];
      for (int64_t i = 0; i < width_; ++i) {
        double* sums = &leaves[block][i * width_];
        for (int64_t k = i; k < width_; ++k)
          sums[k] += static_cast<double>(x[i]) * static_cast<double>(x[k]);
      }
    }
  });
  for (const TreeAdd& add : subtree_adds({0, blocks}))
    for (int64_t k = 0; k < width_ * width_; ++k) leaves[add.into][k] += leaves[add.from][k];
  std::vector<double> gram = std::move(leaves[0]);
  for (int64_t i = 0; i < width_; ++i)
    for (int64_t k = 0; k < i; ++k) gram[i * width_ + k] = gram[k * width_ + i];
  return gram;
}

}  // namespace

std::unique_ptr<AlsTables> make_host_als_tables(const AlsFit& fit, Parameters& parameters,
                                                const AlsTables::Rows& rows, Communicator& comm,
                                                ThreadPool& pool) {
  return std::make_unique<HostAlsTables>(fit, parameters, rows, comm, pool);
}

}  // namespace kt
