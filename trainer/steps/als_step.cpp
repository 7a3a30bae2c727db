#include "trainer/steps/als_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "launch/base/math.h"
#include "launch/collectives/agree.h"
#include "sharding/gather_shards.h"
#include "sharding/tree_sum.h"
#include "trainer/steps/means_step.h"

namespace kt {

AlsStep::AlsStep(const Problem& problem, Parameters& parameters, const Schedule& schedule,
                 std::span<const ShardSamples> samples, Devices* devices, MpiCommunicator& comm,
                 ThreadPool& pool)
    : problem_(problem),
      fit_(*problem.system.als),
      parameters_(parameters),
      schedule_(schedule),
      samples_(samples),
      devices_(devices),
      comm_(comm),
      pool_(pool) {}

void AlsStep::run(int64_t, int64_t step, double, int64_t update) {
  if (!tables_) prepare(update == 1);
  const Side side = step == 0 ? Side::kUser : Side::kItem;
  const double of_pairs = solve(side);
  publish(side);
  const double objective =
      of_pairs + constant_ + unobserved_loss() + known_[0].penalty + known_[1].penalty;
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
    AlsPairs all = collect_pairs(problem_, parameters_, samples_, tested, comm_, pool_);
    constant_ = all.constant;
    rows_ = {{{.array = kUserFactors,
               .pairs = std::move(all.users),
               .ridge = {},
               .tested = std::move(tested.users)},
              {.array = kVideoFactors,
               .pairs = std::move(all.videos),
               .ridge = {},
               .tested = std::move(tested.videos)}}};
    for (const Side side : {Side::kUser, Side::kItem}) rows_[index(side)].ridge = ridges_of(side);
    tables_ = devices_ ? devices_->make_als_tables(fit_, parameters_, rows_, comm_)
                       : make_host_als_tables(fit_, parameters_, rows_, comm_, pool_);
  });
  publish(Side::kUser);
  publish(Side::kItem);
}

/// Times the squared factors of each own row: regularization n^frequency.
std::vector<double> AlsStep::ridges_of(Side side) const {
  const auto& [array, pairs, ridge, tested] = rows_[index(side)];
  const std::vector<uint8_t>& other_tested = rows_[index(other(side))].tested;
  const int64_t all = std::ssize(other_tested),
                untested = all - std::ranges::count(other_tested, uint8_t{1});
  std::vector<double> ridges;
  for (int64_t row = pairs.rows.begin; row < pairs.rows.end; ++row) {
    const double n = static_cast<double>(std::ssize(pairs.of(row))) +
                     fit_.unobserved * static_cast<double>(tested[row] ? untested : all);
    ridges.push_back(fit_.regularization * math::pow(n, fit_.frequency));
  }
  return ridges;
}

/// Solves the own rows. Returns the sum over the pairs of all ranks.
double AlsStep::solve(Side side) {
  // What all pairs add to the equations of a row, and of a tested one: less the other side's tested rows.
  const AlsTables::Summary& from = known_[index(other(side))].summary;
  std::vector<double> gram = from.gram, gram_of_tested = from.gram;
  for (size_t k = 0; k < gram.size(); ++k) {
    gram[k] *= fit_.unobserved;
    gram_of_tested[k] =
        fit_.unobserved * (gram_of_tested[k] - (fit_.exclude_block ? from.gram_of_tested[k] : 0));
  }
  std::optional<std::vector<double>> losses;
  compute_.time([&] { losses = tables_->solve(side, gram, gram_of_tested); });
  int32_t on_all = losses ? 1 : 0;
  communication_.time([&] { comm_.all_reduce(std::span(&on_all, 1), Reduction::kMin); });
  if (on_all == 0)
    throw AgreedError(
        fmt::format("model.regularization: got {}, with which the factors of a {} cannot be found: "
                    "its equations are singular in the precision there is; raise it",
                    fit_.regularization, side == Side::kUser ? "user" : "video"));
  return sum_by_blocks(side, *losses);
}

/// Tells all ranks of the own rows, and finds what follows from them.
void AlsStep::publish(Side side) {
  communication_.time([&] { tables_->publish(side); });
  auto& [summary, penalty] = known_[index(side)];
  compute_.time([&] { summary = tables_->summary(side); });
  std::vector<double> penalties = rows_[index(side)].ridge;
  for (size_t row = 0; row < penalties.size(); ++row) penalties[row] *= summary.squares[row];
  penalty = sum_by_blocks(side, penalties);
}

/// Shapes: of_rows [own rows]. Collective: all ranks.
double AlsStep::sum_by_blocks(Side side, std::span<const double> of_rows) {
  const auto& [array, pairs, ridge, tested] = rows_[index(side)];
  const std::vector<int64_t>& begin = parameters_.find(array).block_begin;
  const Range blocks = parameters_.shards();
  std::vector<double> sums(blocks.size(), 0);
  for (int64_t block = blocks.begin; block < blocks.end; ++block)
    for (int64_t row = begin[block]; row < begin[block + 1]; ++row)
      sums[block - blocks.begin] += of_rows[row - pairs.rows.begin];
  return tree_sum(gather_shards<double>(comm_, sums, parameters_.shard_count()));
}

/// `unobserved` times the squared predictions of all pairs but those excluded.
double AlsStep::unobserved_loss() const {
  const auto inner = [](const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (size_t k = 0; k < a.size(); ++k) sum += a[k] * b[k];
    return sum;
  };
  const AlsTables::Summary &users = known_[0].summary, &videos = known_[1].summary;
  const double all = inner(users.gram, videos.gram);
  const double excluded =
      fit_.exclude_block ? inner(users.gram_of_tested, videos.gram_of_tested) : 0;
  return fit_.unobserved * (all - excluded);
}

}  // namespace kt
