#include "trainer/evaluation/evaluator.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "io/tables/id_dictionary.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/base/progress.h"
#include "launch/base/stopwatch.h"
#include "launch/collectives/agree.h"
#include "launch/process/watchdog.h"
#include "sharding/plan.h"
#include "trainer/evaluation/evaluation_table.h"
#include "trainer/evaluation/groups.h"
#include "trainer/evaluation/metrics/bootstrap.h"
#include "trainer/evaluation/play_time_metrics.h"
#include "trainer/run/samples.h"
#include "trainer/run/share.h"

namespace kt {

TestTable read_test_table(const Problem& problem) {
  if (problem.dataset.test_rows() == 0)
    user_error(
        "{}: the data set has no test table to evaluate on; import it again with --test TABLE",
        problem.dataset.path().string());
  return problem.dataset.read_test();
}

Evaluator::Evaluator(const Problem& problem, const TestTable& table, MpiCommunicator& comm,
                     ThreadPool& pool, std::optional<ScoreUnit> unit)
    : problem_(problem),
      table_(table),
      comm_(comm),
      pool_(pool),
      labels_(binary_labels(problem.config.evaluate.labels)),
      own_users_(problem.user_rows(comm.world())) {
  find_users();
  agree(comm, [&] {
    item_number_ = ascending_numbers(problem.dataset.read_item_ids());
    item_rows_ = problem.dataset.read_item_rows();
  });
  if (!table.label.empty()) {
    const Phase phase("evaluation");
    Stopwatch watch;
    watch.time([&] {
      if (problem.config.evaluate.candidates == EvaluationCandidates::kCatalogue)
        seen_ = seen_items(problem, table.users, user_rank_, comm);
      input_ = {.users = table.users,
                .user_rank = user_rank_,
                .user_rows = user_rows_,
                .offsets = table.offsets,
                .item = table.item,
                .label = table.label,
                .by_label = table.by_label,
                .label_rank = table.label_rank,
                .label_sums = table.label_sums,
                .video_duration = table.video_duration,
                .duration_p80 = table.duration_p80,
                .item_rows = item_rows_,
                .item_number = item_number_,
                .train_label_mean = mean_label(problem.dataset, problem.config.data, comm),
                .labels = labels_,
                .k = problem.config.evaluate.k,
                .score_unit = unit.value_or(problem.system.objective.unit()),
                .seen_offsets = seen_.offsets,
                .seen = seen_.item};
      metrics_.emplace(input_, comm, pool);
    });
    prepare_seconds_ = watch.seconds;
  }
  int64_t own_pairs = 0;
  for (size_t k = 0; k < user_rank_.size(); ++k)
    if (user_rank_[k] == comm.world().rank) own_pairs += table.offsets[k + 1] - table.offsets[k];
  pairs_.item.reserve(static_cast<size_t>(own_pairs));
  for (size_t k = 0; k < user_rank_.size(); ++k) {
    if (user_rank_[k] != comm.world().rank) continue;
    pairs_.add_list(
        row_of(table.users[k]),
        std::span(table.item).subspan(table.offsets[k], table.offsets[k + 1] - table.offsets[k]));
    pairs_.end_block();
  }
}

/// Each rank tells the others of its own.
void Evaluator::find_users() {
  user_rank_.assign(table_.users.size(), -1);
  user_rows_.assign(table_.users.size(), 0);
  for (size_t u = 0; u < table_.users.size(); ++u) {
    const std::optional<size_t> found = problem_.users.find(table_.users[u]);
    if (!found || !own_users_.contains(problem_.users.row[*found])) continue;
    user_rank_[u] = comm_.world().rank;
    user_rows_[u] = problem_.users.user_rows[*found];
  }
  comm_.all_reduce(std::span(user_rank_), Reduction::kMax);
  comm_.all_reduce(std::span(user_rows_), Reduction::kMax);
}

HugeArray<float> Evaluator::score(const Predictor& predictor) const {
  const ProgressBar bar("evaluation: scores", pairs_.size(), "pairs");
  HugeArray<float> scores(static_cast<size_t>(pairs_.size()));
  predictor.predict(pairs_, pool_, scores);
  return scores;
}

void Evaluator::score_catalogue(const Predictor& predictor, std::span<const int32_t> users,
                                std::span<float> out) const {
  const auto items = static_cast<int32_t>(problem_.dataset.items());
  Pairs pairs;
  std::vector<int64_t> place;  // of each in `out`
  for (size_t k = 0; k < users.size(); ++k) {
    const auto seen =
        seen_.of(std::ranges::lower_bound(table_.users, users[k]) - table_.users.begin());
    std::vector<int32_t> unseen;
    for (int32_t item = 0; item < items; ++item) {
      if (std::ranges::binary_search(seen, item)) continue;
      unseen.push_back(item);
      place.push_back(static_cast<int64_t>(k) * items + item);
    }
    pairs.add_list(row_of(users[k]), unseen);
    pairs.end_block();
  }
  std::vector<float> scores(place.size());
  predictor.predict(pairs, pool_, scores);
  std::ranges::fill(out, 0.f);
  for (size_t i = 0; i < place.size(); ++i) out[place[i]] = scores[i];
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

void Evaluator::add_play_times(std::span<const float> scores, EvaluationResult& result) const {
  if (table_.play_duration.empty() || table_.video_duration.empty()) {
    result.notes.push_back("play_time.* is left out: the pairs have no play_duration");
    return;
  }
  if (input_.score_unit != ScoreUnit::kLabel) {
    result.notes.push_back(
        "play_time.* is left out: this system's scores are an order alone, no ratios");
    return;
  }
  const PlayTimeMetrics found =
      evaluate_play_times(input_, table_.play_duration, scores, comm_, pool_);
  result.metrics.insert(found.metrics.begin(), found.metrics.end());
  result.chance.insert(found.chance.begin(), found.chance.end());
  UserValues& users = result.user_values;
  const auto names = std::ssize(users.names);
  std::vector<double> values;
  for (size_t u = 0; u < found.mae_s.size(); ++u) {
    const auto row = users.values.begin() + static_cast<std::ptrdiff_t>(u) * names;
    values.insert(values.end(), row, row + names);
    values.push_back(found.mae_s[u]);
  }
  users.names.push_back("play_time.mae_s");
  users.over_pairs.push_back(1);
  users.values = std::move(values);
}

Evaluation Evaluator::evaluate(const Predictor& predictor, const std::string& checkpoint) {
  const Phase phase("evaluation");
  const auto start = Clock::now();
  Evaluation evaluation{.report = {}, .scores = score(predictor), .user_values = {}};
  comm_.barrier();  // so that who waits for the slowest rank counts that as scoring
  const double score_seconds = seconds_since(start);
  EvaluationResult result;
  Stopwatch intervals_time;
  if (metrics_) {
    result = metrics_->evaluate(evaluation.scores, comm_, pool_,
                                [&](std::span<const int32_t> users, std::span<float> scores) {
                                  score_catalogue(predictor, users, scores);
                                });
    if (problem_.config.evaluate.play_time) add_play_times(evaluation.scores, result);
    intervals_time.time([&] {
      result.intervals = bootstrap_intervals(result.user_values, table_.users,
                                             problem_.config.evaluate.bootstrap, comm_, pool_);
    });
  } else {
    result.users = std::ssize(table_.users);
    result.pairs = std::ssize(table_.item);
    result.notes = {"The pairs have no labels (watch_ratio): scored, without metrics."};
  }
  nlohmann::json groups;
  if (metrics_ && problem_.config.evaluate.groups)
    groups = evaluate_groups(input_, evaluation.scores, problem_, comm_, pool_);
  const double prepare_seconds = std::exchange(prepare_seconds_, 0);
  const double prepare_order = prepare_seconds > 0 ? metrics_->order_preparation_s() : 0;
  std::vector<double> seconds{prepare_seconds + seconds_since(start),
                              prepare_seconds - prepare_order,
                              prepare_order,
                              score_seconds,
                              result.users_seconds,
                              result.order_seconds,
                              intervals_time.seconds};
  comm_.broadcast(std::span<double>(seconds), 0);
  nlohmann::json intervals = nlohmann::json::object();
  for (const auto& [name, interval] : result.intervals)
    intervals[name] = {interval.low, interval.high};
  evaluation.report = {{"checkpoint", checkpoint},
                       {"users", result.users},
                       {"pairs", result.pairs},
                       {"labels", result.labels},
                       {"k", result.k},
                       {"seconds", seconds[0]},
                       {"parts",
                        {{"prepare_users", seconds[1]},
                         {"prepare_order", seconds[2]},
                         {"score", seconds[3]},
                         {"users", seconds[4]},
                         {"order", seconds[5]},
                         {"intervals", seconds[6]}}},
                       {"metrics", result.metrics},
                       {"chance", result.chance},
                       {"intervals", intervals},
                       {"skipped_users", result.skipped_users},
                       {"untrained",
                        {{"users", result.untrained.users},
                         {"items", result.untrained.items},
                         {"pairs", result.untrained.pairs},
                         {"metrics", result.untrained.metrics},
                         {"chance", result.untrained.chance}}},
                       {"notes", result.notes}};
  if (result.catalogue) evaluation.report["candidates"] = "catalogue";
  if (!groups.is_null()) evaluation.report["groups"] = std::move(groups);
  evaluation.user_values = std::move(result.user_values);
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
  // Reports from before there were these keys are of the labels there were, and without intervals.
  const nlohmann::json intervals = report.value("intervals", nlohmann::json::object());
  for (const auto& [name, ends] : intervals.items())
    result.intervals[name] = {.low = ends.at(0), .high = ends.at(1)};
  result.labels = report.value("labels", Config::Evaluate().labels);
  if (report.contains("untrained")) {
    const nlohmann::json& untrained = report.at("untrained");
    untrained.at("users").get_to(result.untrained.users);
    untrained.at("items").get_to(result.untrained.items);
    untrained.at("pairs").get_to(result.untrained.pairs);
    untrained.at("metrics").get_to(result.untrained.metrics);
    untrained.at("chance").get_to(result.untrained.chance);
  }
  result.catalogue = report.contains("candidates");
  log_info("{}{}evaluated in {:.2f} s",
           evaluation_table({.dataset = problem.config.data.path,
                             .checkpoint = report.at("checkpoint"),
                             .synthetic = problem.dataset.synthetic()},
                            result),
           groups_table(report.value("groups", nlohmann::json())),
           report.at("seconds").get<double>());
}

}  // namespace kt
