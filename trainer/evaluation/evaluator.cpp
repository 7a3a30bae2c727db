#include "trainer/evaluation/evaluator.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/process/watchdog.h"
#include "sharding/plan.h"
#include "trainer/evaluation/evaluation_table.h"
#include "trainer/run/share.h"

namespace kt {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Rows of a block of validation rows; part of a run's bits.
constexpr int64_t kValidationBlock = 4096;

std::vector<int32_t> rank_of_users(const Problem& problem, const TestTable& table, int ranks) {
  std::vector<int32_t> rank_of_shard;
  for (int32_t rank = 0; rank < ranks; ++rank)
    rank_of_shard.insert(rank_of_shard.end(),
                         shards_of_rank(problem.dataset.shards(), {rank, ranks}).size(), rank);
  std::vector<int32_t> result;
  for (const int32_t user : table.users)
    result.push_back(rank_of_shard[problem.ids.user_shard[user]]);
  return result;
}

/// Shapes: seconds what it took.
TestMetrics prepare_metrics(const Problem& problem, const TestTable& table,
                            std::span<const int32_t> user_rank, Communicator& comm,
                            ThreadPool& pool, double& seconds) {
  const Phase phase("evaluation");
  const auto start = Clock::now();
  TestMetrics metrics({.users = table.users,
                       .user_rank = user_rank,
                       .offsets = table.offsets,
                       .item = table.item,
                       .label = table.label,
                       .video_duration = table.video_duration,
                       .item_rows = problem.ids.item_rows,
                       .train_label_mean = problem.dataset.train_label_mean(),
                       .k = problem.config.evaluate.k},
                      comm, pool);
  seconds = seconds_since(start);
  return metrics;
}

}  // namespace

TestTable read_test_table(const Problem& problem) {
  if (problem.dataset.test_rows() == 0)
    user_error(
        "{}: the data set has no test table to evaluate on; import it again with --test TABLE",
        problem.dataset.path().string());
  return problem.dataset.read_test();
}

Evaluator::Evaluator(const Problem& problem, const TestTable& table, MpiCommunicator& comm,
                     ThreadPool& pool)
    : problem_(problem),
      table_(table),
      comm_(comm),
      pool_(pool),
      user_rank_(rank_of_users(problem, table, comm.world().size)),
      begin_(1, 0) {
  if (!table.label.empty())
    metrics_.emplace(prepare_metrics(problem, table, user_rank_, comm, pool, prepare_seconds_));
  for (size_t k = 0; k < user_rank_.size(); ++k) {
    if (user_rank_[k] != comm.world().rank) continue;
    own_.push_back(static_cast<int32_t>(k));
    begin_.push_back(begin_.back() + table.offsets[k + 1] - table.offsets[k]);
  }
}

std::vector<float> Evaluator::score(const Predictor& predictor) const {
  std::vector<float> scores(begin_.back());
  pool_.parallel_for(std::ssize(own_), [&](int64_t k, int) {
    const int32_t user = own_[k];
    const int64_t pairs = begin_[k + 1] - begin_[k];
    const std::vector<int32_t> users(pairs, table_.users[user]);
    predictor.predict(users, std::span(table_.item).subspan(table_.offsets[user], pairs),
                      std::span(scores).subspan(begin_[k], pairs));
  });
  return scores;
}

std::vector<float> Evaluator::gather(std::span<const float> scores) const {
  const std::vector<float> by_rank = gather_to_first<float>(scores, comm_);
  if (comm_.world().rank != 0) return {};
  std::vector<float> all(by_rank.size());
  const float* from = by_rank.data();
  for (int32_t rank = 0; rank < comm_.world().size; ++rank)
    for (size_t k = 0; k < user_rank_.size(); ++k) {
      if (user_rank_[k] != rank) continue;
      const int64_t pairs = table_.offsets[k + 1] - table_.offsets[k];
      std::copy_n(from, pairs, all.begin() + table_.offsets[k]);
      from += pairs;
    }
  return all;
}

Evaluation Evaluator::evaluate(const Predictor& predictor, const std::string& checkpoint) {
  const Phase phase("evaluation");
  const auto start = Clock::now();
  Evaluation evaluation{.report = {}, .scores = score(predictor)};
  comm_.barrier();  // so that who waits for the slowest rank counts that as scoring
  const double score_seconds = seconds_since(start);
  EvaluationResult result;
  if (metrics_) {
    result = metrics_->evaluate(evaluation.scores, comm_, pool_);
  } else {
    result.users = std::ssize(table_.users);
    result.pairs = std::ssize(table_.item);
    result.notes = {"The pairs have no labels (watch_ratio): scored, without metrics."};
  }
  const double prepare_seconds = std::exchange(prepare_seconds_, 0);
  const double prepare_order = prepare_seconds > 0 ? metrics_->order_preparation_s() : 0;
  std::vector<double> seconds{prepare_seconds + seconds_since(start),
                              prepare_seconds - prepare_order,
                              prepare_order,
                              score_seconds,
                              result.users_seconds,
                              result.order_seconds};
  comm_.broadcast(std::span<double>(seconds), 0);
  evaluation.report = {{"checkpoint", checkpoint},
                       {"users", result.users},
                       {"pairs", result.pairs},
                       {"k", result.k},
                       {"seconds", seconds[0]},
                       {"parts",
                        {{"prepare_users", seconds[1]},
                         {"prepare_order", seconds[2]},
                         {"score", seconds[3]},
                         {"users", seconds[4]},
                         {"order", seconds[5]}}},
                       {"metrics", result.metrics},
                       {"chance", result.chance},
                       {"skipped_users", result.skipped_users},
                       {"notes", result.notes}};
  if (comm_.world().rank == 0) print_evaluation(problem_, evaluation.report);
  return evaluation;
}

void print_evaluation(const Problem& problem, const nlohmann::json& report) {
  EvaluationResult result;
  report.at("metrics").get_to(result.metrics);
  report.at("chance").get_to(result.chance);
  report.at("skipped_users").get_to(result.skipped_users);
  report.at("notes").get_to(result.notes);
  report.at("k").get_to(result.k);
  report.at("users").get_to(result.users);
  report.at("pairs").get_to(result.pairs);
  log_info("{}evaluated in {:.2f} s",
           evaluation_table({.dataset = problem.config.data.path,
                             .checkpoint = report.at("checkpoint"),
                             .synthetic = problem.dataset.synthetic()},
                            result),
           report.at("seconds").get<double>());
}

namespace {

/// Rows of each user, and the labels user by user, in source order inside a user. `users` and `items` get the same
/// order.
ValidationMetrics prepare_validation(std::span<const ShardSamples> samples,
                                     std::vector<int32_t>& users, std::vector<int32_t>& items,
                                     Communicator& comm, ThreadPool& pool) {
  std::vector<std::vector<int64_t>> user_rows;
  std::vector<float> labels;
  for (const ShardSamples& shard : samples) {
    const Samples& rows = shard.validation;
    std::vector<int64_t>& counts = user_rows.emplace_back(shard.users.size(), 0);
    for (const Sample& sample : rows) ++counts[sample.user];
    std::vector<int64_t> next(counts.size());
    const auto base = static_cast<int64_t>(users.size());
    std::exclusive_scan(counts.begin(), counts.end(), next.begin(), base);
    users.resize(base + rows.size());
    items.resize(base + rows.size());
    labels.resize(base + rows.size());
    for (const Sample& sample : rows) {
      const int64_t at = next[sample.user]++;
      users[at] = shard.users[sample.user];
      items[at] = sample.item;
      labels[at] = sample.label;
    }
  }
  return {std::move(user_rows), std::move(labels), comm, pool};
}

}  // namespace

Validator::Validator(std::span<const ShardSamples> samples, MpiCommunicator& comm, ThreadPool& pool)
    : comm_(comm), pool_(pool), metrics_(prepare_validation(samples, users_, items_, comm, pool)) {
  int64_t base = 0;
  for (const ShardSamples& shard : samples) {
    const int64_t end = base + std::ssize(shard.validation);
    for (; base < end; base = blocks_.back().end)
      blocks_.push_back({base, std::min(base + kValidationBlock, end)});
  }
}

ValidationResult Validator::validate(const Predictor& predictor) const {
  std::vector<float> scores(users_.size());
  pool_.parallel_for(std::ssize(blocks_), [&](int64_t k, int) {
    const auto [begin, end] = blocks_[k];
    const auto part = [&](auto& column) { return std::span(column).subspan(begin, end - begin); };
    predictor.predict(part(users_), part(items_), part(scores));
  });
  return metrics_.evaluate(scores, comm_, pool_);
}

}  // namespace kt
