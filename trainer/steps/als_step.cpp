#include "trainer/steps/als_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>

#include "launch/base/math.h"
#include "launch/collectives/agree.h"
#include "models/als/row_solver.h"
#include "sharding/gather_shards.h"
#include "sharding/tree_sum.h"
#include "trainer/steps/means_step.h"

namespace kt {

AlsStep::AlsStep(const Problem& problem, Parameters& parameters, const Schedule& schedule,
                 std::span<const ShardSamples> samples, MpiCommunicator& comm, ThreadPool& pool)
    : problem_(problem),
      fit_(*problem.system.als),
      parameters_(parameters),
      schedule_(schedule),
      samples_(samples),
      comm_(comm),
      pool_(pool),
      width_(parameters.find(kUserFactors).spec.cols) {}

void AlsStep::run(int64_t, int64_t step, double, int64_t update) {
  if (!pairs_) prepare(update == 1);
  const bool of_users = step == 0;
  Side &solved = of_users ? users_ : videos_, &other = of_users ? videos_ : users_;
  const SidePairs& pairs = of_users ? pairs_->users : pairs_->videos;
  const double of_pairs = solve(solved, pairs, other);
  publish(solved, pairs, other);
  const double objective =
      of_pairs + pairs_->constant + unobserved_loss() + users_.penalty + videos_.penalty;
  outcomes_.push_back({.loss = objective / static_cast<double>(schedule_.samples()) *
                               static_cast<double>(schedule_.batch_size(step)),
                       .gradient_norm = 0});
}

/// What only the training rows and the weights so far decide.
void AlsStep::prepare(bool is_first) {
  input_.time([&] {
    if (is_first) find_means(problem_.system, parameters_, samples_, comm_, pool_);
    TestedRows tested{.users = std::vector<uint8_t>(problem_.dataset.users(), 0),
                      .videos = std::vector<uint8_t>(problem_.dataset.items(), 0)};
    if (fit_.exclude_block) tested = tested_rows(problem_, comm_);
    pairs_ = collect_pairs(problem_, parameters_, samples_, tested, comm_, pool_);
    users_.tested = std::move(tested.users);
    videos_.tested = std::move(tested.videos);
    for (Side* side : {&users_, &videos_})
      side->tested_count = std::ranges::count(side->tested, uint8_t{1});
  });
  publish(users_, pairs_->users, videos_);
  publish(videos_, pairs_->videos, users_);
}

/// Solves the own rows of `side`. Returns the sum over the pairs of all ranks.
double AlsStep::solve(Side& side, const SidePairs& pairs, const Side& other) {
  // What all pairs add to the equations of a row, and of a tested one: less the other side's tested rows.
  std::vector<double> gram = other.gram, gram_of_tested = other.gram;
  for (size_t k = 0; k < gram.size(); ++k) {
    gram[k] *= fit_.unobserved;
    gram_of_tested[k] =
        fit_.unobserved * (gram_of_tested[k] - (fit_.exclude_block ? other.gram_of_tested[k] : 0));
  }
  std::vector<RowSolver> solvers;
  for (int thread = 0; thread < pool_.threads(); ++thread)
    solvers.emplace_back(width_, fit_.block, parameters_.simd);
  ParameterArray& array = parameters_.find(side.array);
  const std::span<float> rows = array.rows(array.value, array.owned);
  std::vector<double> losses(pairs.rows.size());
  std::atomic<bool> solvable = true;
  compute_.time([&] {
    pool_.parallel_for(pairs.rows.size(), [&](int64_t k, int thread) {
      const int64_t row = pairs.rows.begin + k;
      const auto loss = solvers[thread].solve({.pairs = pairs.of(row),
                                               .table = other.table.data(),
                                               .gram = side.tested[row] ? gram_of_tested : gram,
                                               .ridge = ridge_of(side, pairs, other, row)},
                                              rows.data() + k * width_);
      if (loss)
        losses[k] = *loss;
      else
        solvable = false;
    });
  });
  int32_t on_all = solvable ? 1 : 0;
  communication_.time([&] { comm_.all_reduce(std::span(&on_all, 1), Reduction::kMin); });
  if (on_all == 0)
    throw AgreedError(
        fmt::format("model.regularization: got {}, with which the factors of a {} cannot be found: "
                    "its equations are singular in the precision there is; raise it",
                    fit_.regularization, side.what));
  return sum_by_blocks(side, pairs.rows, losses);
}

/// Tells all ranks of the own rows of `side`, and finds what follows from them.
void AlsStep::publish(Side& side, const SidePairs& pairs, const Side& other) {
  ParameterArray& array = parameters_.find(side.array);
  communication_.time([&] {
    side.table = gather_blocks<float>(comm_, array.rows(array.value, array.owned),
                                      array.block_begin, width_);
  });
  std::copy_n(side.table.begin() + array.held.begin * width_, array.value.size(),
              array.value.begin());  // a replica holds other ranks' rows as well
  compute_.time([&] {
    side.gram = gram_of(side, false);
    if (fit_.exclude_block) side.gram_of_tested = gram_of(side, true);
  });
  std::vector<double> penalties(pairs.rows.size());
  for (int64_t row = pairs.rows.begin; row < pairs.rows.end; ++row) {
    double squares = 0;
    for (int64_t c = row * width_; c < (row + 1) * width_; ++c)
      squares += static_cast<double>(side.table[c]) * static_cast<double>(side.table[c]);
    penalties[row - pairs.rows.begin] = ridge_of(side, pairs, other, row) * squares;
  }
  side.penalty = sum_by_blocks(side, pairs.rows, penalties);
}

/// Table' table, by blocks over the tree, the same on every rank. Shapes: result [width, width].
std::vector<double> AlsStep::gram_of(const Side& side, bool tested_alone) {
  const std::vector<int64_t>& begin = parameters_.find(side.array).block_begin;
  const int64_t blocks = std::ssize(begin) - 1;
  std::vector<std::vector<double>> leaves(blocks, std::vector<double>(width_ * width_, 0));
  pool_.parallel_for(blocks, [&](int64_t block, int) {
    for (int64_t row = begin[block]; row < begin[block + 1]; ++row) {
      if (tested_alone && !side.tested[row]) continue;
      const float* x = &side.table[row * width_];
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

/// Times the squared factors of a row: regularization n^frequency.
double AlsStep::ridge_of(const Side& side, const SidePairs& pairs, const Side& other,
                         int64_t row) const {
  int64_t others = std::ssize(other.tested);
  if (side.tested[row]) others -= other.tested_count;
  const double n = static_cast<double>(std::ssize(pairs.of(row))) +
                   fit_.unobserved * static_cast<double>(others);
  return fit_.regularization * math::pow(n, fit_.frequency);
}

/// Shapes: of_rows [rows], own rows of `side`. Collective: all ranks.
double AlsStep::sum_by_blocks(const Side& side, Range rows, std::span<const double> of_rows) {
  const std::vector<int64_t>& begin = parameters_.find(side.array).block_begin;
  const Range blocks = parameters_.shards();
  std::vector<double> sums(blocks.size(), 0);
  for (int64_t block = blocks.begin; block < blocks.end; ++block)
    for (int64_t row = begin[block]; row < begin[block + 1]; ++row)
      sums[block - blocks.begin] += of_rows[row - rows.begin];
  return tree_sum(gather_shards<double>(comm_, sums, parameters_.shard_count()));
}

/// `unobserved` times the squared predictions of all pairs but those excluded.
double AlsStep::unobserved_loss() const {
  const auto inner = [](const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (size_t k = 0; k < a.size(); ++k) sum += a[k] * b[k];
    return sum;
  };
  const double all = inner(users_.gram, videos_.gram);
  const double excluded =
      fit_.exclude_block ? inner(users_.gram_of_tested, videos_.gram_of_tested) : 0;
  return fit_.unobserved * (all - excluded);
}

}  // namespace kt
