#include "trainer/evaluator.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>

#include "launch/agree.h"
#include "launch/errors.h"
#include "launch/log.h"
#include "sharding/plan.h"
#include "trainer/evaluation_table.h"
#include "trainer/share.h"

namespace kt {
namespace {

/// Rows of a block of validation rows; part of a run's bits.
constexpr int64_t kValidationBlock = 4096;

}  // namespace

TestTable read_test_table(const Problem& problem) {
  if (problem.dataset.test_rows() == 0)
    user_error(
        "{}: the data set has no test table to evaluate on; import it again with --test TABLE",
        problem.dataset.path().string());
  return problem.dataset.read_test();
}

std::vector<float> score_pairs(const Problem& problem, const Predictor& predictor,
                               const TestTable& table, MpiCommunicator& comm, ThreadPool& pool) {
  // Test users in the order of their shards, so that rank order is this order on any number of ranks.
  std::vector<int32_t> order(table.users.size());
  std::iota(order.begin(), order.end(), 0);
  const auto shard_of = [&](int32_t k) { return problem.ids.user_shard[table.users[k]]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return shard_of(a) < shard_of(b); });
  const Range shards = shards_of_rank(problem.dataset.shards(), comm.world());
  std::vector<int32_t> mine;
  std::vector<int64_t> begin(1, 0);
  for (const int32_t k : order) {
    if (shard_of(k) < shards.begin || shard_of(k) >= shards.end) continue;
    mine.push_back(k);
    begin.push_back(begin.back() + table.offsets[k + 1] - table.offsets[k]);
  }

  std::vector<float> own(begin.back());
  pool.parallel_for(static_cast<int64_t>(mine.size()), [&](int64_t k, int) {
    const int32_t user = mine[k];
    const int64_t pairs = begin[k + 1] - begin[k];
    const std::vector<int32_t> users(pairs, table.users[user]);
    predictor.predict(users, std::span(table.item).subspan(table.offsets[user], pairs),
                      std::span(own).subspan(begin[k], pairs));
  });
  const std::vector<float> in_shard_order = gather_to_first<float>(own, comm);
  if (comm.world().rank != 0) return {};

  std::vector<float> scores(in_shard_order.size());
  const float* from = in_shard_order.data();
  for (const int32_t k : order) {
    const int64_t pairs = table.offsets[k + 1] - table.offsets[k];
    std::copy_n(from, pairs, scores.begin() + table.offsets[k]);
    from += pairs;
  }
  return scores;
}

Evaluation evaluate_model(const Problem& problem, const Predictor& predictor,
                          const TestTable& table, const std::string& checkpoint,
                          MpiCommunicator& comm, ThreadPool& pool) {
  const auto start = std::chrono::steady_clock::now();
  Evaluation evaluation{.report = {}, .scores = score_pairs(problem, predictor, table, comm, pool)};
  std::string text;
  solo(comm, 0, "evaluation", [&] {
    const EvaluationResult result =
        evaluate_metrics({.users = table.users,
                          .offsets = table.offsets,
                          .item = table.item,
                          .label = table.label,
                          .score = evaluation.scores,
                          .video_duration = table.video_duration,
                          .item_rows = problem.ids.item_rows,
                          .train_label_mean = problem.dataset.train_label_mean(),
                          .k = problem.config.evaluate.k},
                         pool.threads());
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const nlohmann::json report{{"checkpoint", checkpoint}, {"users", result.users},
                                {"pairs", result.pairs},    {"k", result.k},
                                {"seconds", seconds},       {"metrics", result.metrics},
                                {"chance", result.chance},  {"skipped_users", result.skipped_users},
                                {"notes", result.notes}};
    print_evaluation(problem, report);
    text = report.dump();
  });
  evaluation.report = nlohmann::json::parse(share_text(text, 0, comm));
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

ValidationResult validate(const Predictor& predictor, std::span<const ShardSamples> samples,
                          MpiCommunicator& comm, ThreadPool& pool) {
  // A shard's held-out rows, user by user, in source order inside a user.
  struct Block {
    size_t shard;
    int64_t begin, end;
  };
  std::vector<std::vector<int32_t>> users(samples.size()), items(samples.size());
  std::vector<std::vector<float>> scores(samples.size());
  std::vector<Block> blocks;
  std::vector<int64_t> rows_per_user;
  std::vector<float> labels;
  for (size_t j = 0; j < samples.size(); ++j) {
    const Samples& rows = samples[j].validation;
    std::vector<int32_t> order(rows.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return rows[a].user < rows[b].user; });
    std::vector<int64_t> counts(samples[j].users.size(), 0);
    for (const int32_t k : order) {
      ++counts[rows[k].user];
      users[j].push_back(samples[j].users[rows[k].user]);
      items[j].push_back(rows[k].item);
      labels.push_back(rows[k].label);
    }
    rows_per_user.insert(rows_per_user.end(), counts.begin(), counts.end());
    scores[j].resize(order.size());
    for (int64_t begin = 0; begin < std::ssize(rows); begin += kValidationBlock)
      blocks.push_back({j, begin, std::min(begin + kValidationBlock, std::ssize(rows))});
  }
  pool.parallel_for(static_cast<int64_t>(blocks.size()), [&](int64_t k, int) {
    const Block& block = blocks[k];
    const auto part = [&](auto& column) {
      return std::span(column[block.shard]).subspan(block.begin, block.end - block.begin);
    };
    predictor.predict(part(users), part(items), part(scores));
  });
  std::vector<float> own;
  for (const auto& shard : scores) own.insert(own.end(), shard.begin(), shard.end());

  const std::vector<int64_t> all_counts = gather_to_first<int64_t>(rows_per_user, comm);
  const std::vector<float> all_labels = gather_to_first<float>(labels, comm);
  const std::vector<float> all_scores = gather_to_first<float>(own, comm);
  // Everything as one array, so that rank 0's result reaches the others in one broadcast; NaN = absent.
  constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();
  std::array<double, 6> shared{0, 0, 0, 0, kAbsent, kAbsent};
  solo(comm, 0, "validation metrics", [&] {
    if (all_labels.empty()) return;
    std::vector<int64_t> offsets(all_counts.size() + 1, 0);
    std::partial_sum(all_counts.begin(), all_counts.end(), offsets.begin() + 1);
    const ValidationResult result =
        validation_metrics(offsets, all_labels, all_scores, pool.threads());
    shared = {static_cast<double>(result.rows),
              result.mse,
              result.mae,
              result.rmse,
              result.gauc.value_or(kAbsent),
              result.xauc.value_or(kAbsent)};
  });
  comm.broadcast(std::span<double>(shared), 0);
  const auto optional = [](double value) {
    return std::isnan(value) ? std::nullopt : std::optional(value);
  };
  return {.rows = static_cast<int64_t>(shared[0]),
          .mse = shared[1],
          .mae = shared[2],
          .rmse = shared[3],
          .gauc = optional(shared[4]),
          .xauc = optional(shared[5])};
}

}  // namespace kt
