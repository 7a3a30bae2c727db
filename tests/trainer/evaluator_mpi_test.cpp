#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "models/systems/registry.h"
#include "sharding/plan.h"
#include "tests/reference/metrics_reference.h"
#include "tests/trainer/small_problem.h"
#include "trainer/evaluation/evaluator.h"
#include "trainer/evaluation/groups.h"
#include "trainer/evaluation/validator.h"

namespace kt {
namespace {

struct Computed {
  const char* name;
  EngineName engine;
  FormName form;
};

class Evaluate : public SmallProblem, public ::testing::WithParamInterface<Computed> {
 protected:
  void open(int64_t shards) {
    config.model.engine = GetParam().engine;
    config.model.form = GetParam().form;
    import(shards);
    problem = open_problem(config, comm);
    whole = open_problem(config, self);
  }
  /// As the ranks opened it.
  const Problem& problem_of(const Communicator& ranks) const {
    return &ranks == &self ? whole : problem;
  }
  Parameters weights(Communicator& ranks) {
    Parameters parameters = make_parameters(problem, ranks.world());
    fill_weights(parameters, .3);
    return parameters;
  }
  std::unique_ptr<Predictor> predictor(Parameters& parameters, Communicator& ranks) const {
    return make_host_predictor(problem_of(ranks), parameters, ranks);
  }
  std::vector<float> scores_of(Parameters& parameters, const TestTable& test,
                               MpiCommunicator& ranks, ThreadPool& pool) const {
    const Evaluator evaluator(problem_of(ranks), test, ranks, pool);
    return evaluator.gather(evaluator.score(*predictor(parameters, ranks)));
  }
  ValidationResult validate(Parameters& parameters, std::span<const ShardSamples> samples,
                            MpiCommunicator& ranks, ThreadPool& pool) const {
    return Validator(samples, binary_labels(config.evaluate.labels), ranks, pool)
        .validate(*predictor(parameters, ranks));
  }

  /// Straight through an engine of its own, with nothing but what the rows need. Shapes: items, result [n].
  std::vector<float> plain_scores(const std::vector<std::vector<float>>& arrays, int32_t user,
                                  std::span<const int32_t> items) const {
    const auto engine = make_engine(problem.system, engine_options(problem.config));
    std::vector<float> dense;
    for (size_t a = 2; a < arrays.size(); ++a)
      dense.insert(dense.end(), arrays[a].begin(), arrays[a].end());
    engine->set_dense(dense);
    const auto rows = static_cast<int64_t>(items.size());
    const auto table_row = static_cast<int32_t>(user_row[user]);
    std::vector<float> user_parts(kSmallUsers * engine->part_width(Side::kUser)),
        item_parts(kSmallItems * engine->part_width(Side::kItem)), scores(rows);
    engine->forward_ids(Side::kUser, {.n = 1, .row = &table_row, .tables = {arrays[0].data()}},
                        user_parts.data());
    engine->forward_ids(Side::kItem, {.n = rows, .row = items.data(), .tables = {arrays[1].data()}},
                        item_parts.data());
    const std::vector<int32_t> users(rows, table_row);
    engine->predict_rows({.n = rows,
                          .user_parts = user_parts.data(),
                          .item_parts = item_parts.data(),
                          .user = users.data(),
                          .item = items.data(),
                          .item_id = items.data()},
                         scores.data());
    return scores;
  }
  std::vector<std::vector<float>> arrays_of(Parameters& parameters, Communicator& ranks) {
    std::vector<std::vector<float>> arrays;
    for (size_t a = 0; a < parameters.arrays.size(); ++a)
      arrays.push_back(whole_array(parameters, a, ranks));
    return arrays;
  }

  Problem problem, whole;
};

INSTANTIATE_TEST_SUITE_P(Engines, Evaluate,
                         ::testing::Values(Computed{"Torch", EngineName::kTorch, FormName::kRows},
                                           Computed{"Rows", EngineName::kFused, FormName::kRows},
                                           Computed{"Ids", EngineName::kFused, FormName::kIds}),
                         [](const auto& test) { return test.param.name; });

// What becomes of the weights it was made of, and what else the problem predicts with, changes nothing.
TEST_P(Evaluate, APredictorKeepsItsWeights) {
  open(8);
  auto parameters = std::make_unique<Parameters>(weights(comm));
  const auto kept = predictor(*parameters, comm);
  ThreadPool pool(2);
  Pairs pairs;
  for (int32_t user = 0; user < kSmallUsers; ++user) {
    const int32_t item = user % kSmallItems;
    const Range own = problem.user_rows(world);
    if (!own.contains(user_row[user])) continue;
    pairs.add_list(user_row[user] - own.begin, std::span(&item, 1));
    if (user % 3 == 0) pairs.end_block();
  }
  pairs.end_block();
  std::vector<float> before(pairs.size()), after(pairs.size()), others(pairs.size());
  kept->predict(pairs, pool, before);
  Parameters other = make_parameters(problem, world);
  fill_weights(other, .7);
  predictor(other, comm)->predict(pairs, pool, others);
  problem.engine->set_dense(other.dense);
  std::ranges::fill(parameters->dense, 9.f);
  parameters.reset();
  kept->predict(pairs, pool, after);
  EXPECT_EQ(after, before);
  EXPECT_NE(others, before);
}

TEST_P(Evaluate, ScoresAreTheEnginesOnAnyNumberOfRanksAndThreads) {
  for (const int64_t shards : {4, 64}) {
    open(shards);
    const TestTable pairs = read_test_table(problem);
    ASSERT_EQ(pairs.users.size(), static_cast<size_t>(kSmallUsers));
    Parameters parameters = weights(comm);
    const std::vector<std::vector<float>> arrays = arrays_of(parameters, comm);
    std::vector<float> expected;
    for (size_t u = 0; u < pairs.users.size(); ++u) {
      const auto items =
          std::span(pairs.item).subspan(pairs.offsets[u], pairs.offsets[u + 1] - pairs.offsets[u]);
      const std::vector<float> scores = plain_scores(arrays, pairs.users[u], items);
      expected.insert(expected.end(), scores.begin(), scores.end());
    }
    EXPECT_NE(expected.front(), expected.back());

    for (const int threads : {1, 2}) {
      ThreadPool pool(threads);
      const std::vector<float> scores = scores_of(parameters, pairs, comm, pool);
      EXPECT_EQ(scores, world.rank == 0 ? expected : std::vector<float>{});
      Parameters alone = weights(self);
      EXPECT_EQ(scores_of(alone, pairs, self, pool), expected);
    }
    // Some of the users alone, the last one first in no order of shards.
    const TestTable some{.users = {3, 39},
                         .offsets = {0, 2, 3},
                         .item = {1, 4, 24},
                         .label = {1, 2, 3},
                         .video_duration = {}};
    ThreadPool pool(1);
    const std::vector<float> scores = scores_of(parameters, some, comm, pool);
    if (world.rank == 0) {
      EXPECT_EQ(std::vector<float>(scores.begin(), scores.begin() + 2),
                plain_scores(arrays, 3, std::vector<int32_t>{1, 4}));
      EXPECT_EQ(std::vector<float>(scores.begin() + 2, scores.end()),
                plain_scores(arrays, 39, std::vector<int32_t>{24}));
    }
  }
}

/// All that must not depend on ranks and threads.
nlohmann::json without_times(nlohmann::json report) {
  report.erase("seconds");
  report.erase("parts");
  return report;
}

TEST_P(Evaluate, TheReportIsTheSameOnAnyNumberOfRanksAndThreads) {
  config.evaluate.k = {3, 10};
  config.evaluate.bootstrap = 50;
  for (const int64_t shards : {4, 64}) {
    open(shards);
    Parameters parameters = weights(comm), alone = weights(self);
    const TestTable pairs = read_test_table(problem);
    // Ties of labels and of scores, a user alone with his pairs, ranks without users.
    const TestTable some{.users = {3, 39},
                         .offsets = {0, 6, 7},
                         .item = {1, 1, 1, 2, 4, 5, 24},
                         .label = {1, 2, 3, 3, 2.5, 0, 3},
                         .video_duration = {9, 9, 9, 8, 8, 7, 1}};
    // As a data set has it that was imported before there was what its labels alone decide.
    EXPECT_FALSE(pairs.by_label.empty());
    EXPECT_EQ(pairs.duration_p80.size(), pairs.video_duration.size());
    EXPECT_FALSE(pairs.label_sums.label.empty());
    const TestTable unranked{.users = pairs.users,
                             .offsets = pairs.offsets,
                             .item = pairs.item,
                             .label = pairs.label,
                             .video_duration = pairs.video_duration};
    ThreadPool one(1), two(2);
    EXPECT_EQ(
        without_times(
            Evaluator(whole, pairs, self, one).evaluate(*predictor(alone, self), "step 7").report),
        without_times(Evaluator(whole, unranked, self, one)
                          .evaluate(*predictor(alone, self), "step 7")
                          .report));
    for (const TestTable* test : {&pairs, &unranked, &some}) {
      const Evaluation expected =
          Evaluator(whole, *test, self, one).evaluate(*predictor(alone, self), "step 7");
      for (ThreadPool* pool : {&one, &two}) {
        Evaluator evaluator(problem, *test, comm, *pool);
        const auto of_all = predictor(parameters, comm);
        const nlohmann::json first = evaluator.evaluate(*of_all, "step 7").report;
        const nlohmann::json again = evaluator.evaluate(*of_all, "step 7").report;
        EXPECT_EQ(without_times(first), without_times(expected.report));
        EXPECT_EQ(without_times(again), without_times(expected.report));
        EXPECT_EQ(again.at("parts").at("prepare_users"), 0);
        EXPECT_EQ(again.at("parts").at("prepare_order"), 0);
        for (const char* part : {"score", "users", "order"})
          EXPECT_LT(again.at("parts").at(part), again.at("seconds")) << part;
      }
      double squares = 0;
      for (size_t k = 0; k < test->label.size(); ++k)
        squares += std::pow(expected.scores[k] - test->label[k], 2);
      EXPECT_EQ(expected.report.at("checkpoint"), "step 7");
      EXPECT_EQ(expected.report.at("users"), test->users.size());
      EXPECT_EQ(expected.report.at("pairs"), test->item.size());
      EXPECT_NEAR(expected.report.at("metrics").at("mse").get<double>(),
                  squares / static_cast<double>(test->label.size()), 1e-9);
      EXPECT_TRUE(expected.report.at("metrics").contains("ndcg@3/ratio>=1"));
      const nlohmann::json& interval = expected.report.at("intervals").at("mse");
      EXPECT_LT(interval.at(0), interval.at(1));
    }
  }
}

TEST_P(Evaluate, ListsOfTheCatalogueAreOfAllThatAUserHasNotSeen) {
  config.evaluate.k = {2, 5};
  config.evaluate.labels = {"ratio>=1", "ratio>=2"};
  config.evaluate.candidates = EvaluationCandidates::kCatalogue;
  open(8);
  Parameters parameters = weights(comm), alone = weights(self);
  const TestTable pairs = read_test_table(problem);
  ThreadPool one(1), two(2);
  const nlohmann::json report =
      Evaluator(problem, pairs, comm, two).evaluate(*predictor(parameters, comm), "").report;
  EXPECT_EQ(report.at("candidates"), "catalogue");
  EXPECT_EQ(without_times(report),
            without_times(
                Evaluator(whole, pairs, self, one).evaluate(*predictor(alone, self), "").report));

  const std::vector<std::vector<float>> arrays = arrays_of(alone, self);
  std::vector<int32_t> catalogue(kSmallItems);
  std::iota(catalogue.begin(), catalogue.end(), 0);
  reference::Users users;
  for (int32_t user = 0; user < kSmallUsers; ++user) {
    const std::vector<float> scores = plain_scores(arrays, user, catalogue);
    std::vector<reference::Pair> candidates;
    for (const int32_t item : catalogue) {
      if (std::ranges::any_of(
              table, [&](const PlainRow& row) { return row.user == user && row.item == item; }))
        continue;
      candidates.push_back({item, 0, scores[static_cast<size_t>(item)], 1});
      for (const PlainRow& row : test_table)
        if (row.user == user && row.item == item)
          candidates.back().label = static_cast<double>(row.label);
    }
    users.push_back(candidates);
  }
  const auto expected = reference::metrics(users, ids.item_rows, config.evaluate.k,
                                           {.thresholds = {{"ratio>=1", 1}, {"ratio>=2", 2}},
                                            .tops = {},
                                            .duration_p80 = false,
                                            .item_number = {}});
  for (const char* name :
       {"precision@2/ratio>=1", "recall@5/ratio>=2", "ndcg@2/ratio>=2", "map@5/ratio>=1",
        "mrr/ratio>=2", "ndcg@5/graded5", "coverage@2", "novelty@5"})
    EXPECT_NEAR(report.at("metrics").at(name).get<double>(), expected.at(name), 1e-9) << name;
}

TEST_P(Evaluate, GroupsAreOfThePairsOfATenth) {
  config.evaluate.k = {2};
  config.evaluate.groups = true;
  open(8);
  Parameters parameters = weights(comm), alone = weights(self);
  const TestTable pairs = read_test_table(problem);
  ThreadPool pool(2);
  const nlohmann::json groups = Evaluator(problem, pairs, comm, pool)
                                    .evaluate(*predictor(parameters, comm), "")
                                    .report.at("groups");
  EXPECT_EQ(groups, Evaluator(whole, pairs, self, pool)
                        .evaluate(*predictor(alone, self), "")
                        .report.at("groups"));
  EXPECT_FALSE(groups.contains("duration"));  // the table has none
  const std::vector<float> scores = scores_of(alone, pairs, self, pool);
  for (const char* name : {"activity", "popularity"}) {
    const auto rows_of = [&](int32_t user, int32_t item) {
      return std::ranges::count_if(table, [&](const PlainRow& row) {
        return std::string(name) == "activity" ? row.user == user : row.item == item;
      });
    };
    int64_t all = 0;
    for (const nlohmann::json& line : groups.at(name)) {
      SCOPED_TRACE(line.dump());
      const int64_t from = line.at("from"), to = line.at("to");
      const auto smaller = std::ranges::count_if(
          table, [&](const PlainRow& row) { return rows_of(row.user, row.item) < from; });
      EXPECT_EQ(line.at("tenth"), 1 + 10 * smaller / std::ssize(table));
      int64_t count = 0;
      double absolute = 0;
      std::set<int32_t> users;
      for (size_t u = 0; u < pairs.users.size(); ++u)
        for (int64_t k = pairs.offsets[u]; k < pairs.offsets[u + 1]; ++k) {
          const auto rows = rows_of(pairs.users[u], pairs.item[k]);
          if (rows < from || rows > to) continue;
          ++count;
          users.insert(pairs.users[u]);
          absolute += std::abs(reference::cut5(static_cast<double>(scores[k])) -
                               reference::cut5(pairs.label[k]));
        }
      EXPECT_EQ(line.at("pairs"), count);
      EXPECT_EQ(line.at("users"), users.size());
      EXPECT_NEAR(line.at("metrics").at("mae_clipped").get<double>(),
                  absolute / static_cast<double>(count), 1e-9);
      EXPECT_EQ(line.at("metrics").size(), line.at("chance").size());
      all += count;
    }
    EXPECT_EQ(all, std::ssize(pairs.item));
    EXPECT_GT(groups.at(name).size(), 3u);
  }
  EXPECT_TRUE(groups.at("popularity").at(0).at("metrics").contains("ndcg@2/ratio>=1"));
  EXPECT_THAT(groups_table(groups), ::testing::HasSubstr("by popularity"));
}

TEST(Tenths, PartRowsByTheirNumbers) {
  // Twenty rows: eight of number 2, two of 5, ten of 9.
  const Tenths tenths({{2, 8}, {3, 0}, {5, 2}, {9, 10}});
  EXPECT_EQ(tenths.of(0), 0);
  EXPECT_EQ(tenths.of(2), 0);
  EXPECT_EQ(tenths.of(3), 4);
  EXPECT_EQ(tenths.of(5), 4);
  EXPECT_EQ(tenths.of(9), 5);
  EXPECT_EQ(tenths.of(10), 9);
}

TEST_P(Evaluate, ErrorsAreComparedWithTheMeanOfWhatIsTrainedOn) {
  for (const double clip : {0., 2.}) {
    config.data.target.clip = clip;
    open(clip > 0 ? 8 : 4);
    double sum = 0, squares = 0;
    for (const PlainRow& row : table)
      sum += clip > 0 ? std::min<double>(row.label, clip) : static_cast<double>(row.label);
    const double mean = sum / static_cast<double>(table.size());

    const TestTable pairs = read_test_table(problem);
    for (const double label : pairs.label) squares += (label - mean) * (label - mean);
    Parameters parameters = weights(comm);
    ThreadPool pool(1);
    const nlohmann::json report =
        Evaluator(problem, pairs, comm, pool).evaluate(*predictor(parameters, comm), "").report;
    EXPECT_NEAR(report.at("chance").at("mse").get<double>(),
                squares / static_cast<double>(pairs.label.size()), 1e-9);
  }
}

TEST_P(Evaluate, LabelsIdsAndUnitAreThoseOfTheRun) {
  config.evaluate.labels = {"top-2", "ratio>=1.5"};
  open(8);
  const TestTable pairs = read_test_table(problem);
  Parameters parameters = weights(comm);
  ThreadPool pool(2);
  const auto report = [&](ScoreUnit unit) {
    problem.system.objective.target =
        unit == ScoreUnit::kOrder ? TargetKind::kPositive : TargetKind::kRaw;
    return Evaluator(problem, pairs, comm, pool).evaluate(*predictor(parameters, comm), "").report;
  };
  const nlohmann::json ratios = report(ScoreUnit::kLabel), orders = report(ScoreUnit::kOrder);
  EXPECT_EQ(ratios.at("labels"), nlohmann::json({"top-2", "ratio>=1.5"}));
  EXPECT_TRUE(ratios.at("metrics").contains("gauc@ratio>=1.5"));
  EXPECT_TRUE(ratios.at("metrics").contains("mrr/top-2"));
  EXPECT_FALSE(ratios.at("metrics").contains("mrr/ratio>=1"));
  EXPECT_FALSE(orders.at("metrics").contains("mse"));
  EXPECT_EQ(orders.at("metrics").at("gauc@ratio>=1.5"), ratios.at("metrics").at("gauc@ratio>=1.5"));
  // Ids are u00, v00, ...
  EXPECT_FALSE(ratios.at("metrics").contains("feature_mlp.ndcg@10_on_ids"));

  // The last six users and the last item have no training rows.
  double absolute = 0, rows = 0;
  Parameters alone = weights(self);
  const Evaluation evaluation =
      Evaluator(whole, pairs, self, pool).evaluate(*predictor(alone, self), "");
  for (size_t u = 0; u < pairs.users.size(); ++u)
    for (int64_t k = pairs.offsets[u]; k < pairs.offsets[u + 1]; ++k)
      if (pairs.users[u] >= kSmallUsers - 6 || pairs.item[k] == kSmallItems - 1) {
        rows += 1;
        absolute += std::abs(static_cast<double>(evaluation.scores[k]) - pairs.label[k]);
      }
  const nlohmann::json& untrained = ratios.at("untrained");
  EXPECT_EQ(untrained.at("users"), 6);
  EXPECT_EQ(untrained.at("items"), 1);
  EXPECT_EQ(untrained.at("pairs"), rows);
  EXPECT_NEAR(untrained.at("metrics").at("mae").get<double>(), absolute / rows, 1e-9);
  EXPECT_TRUE(untrained.at("chance").contains("mse_clipped"));
}

TEST_P(Evaluate, IdsThatAreNumbersAreScoredAsSuch) {
  item_prefix = "";
  open(8);
  const TestTable pairs = read_test_table(problem);
  Parameters parameters = weights(comm);
  ThreadPool pool(2);
  EXPECT_TRUE(Evaluator(problem, pairs, comm, pool)
                  .evaluate(*predictor(parameters, comm), "")
                  .report.at("metrics")
                  .contains("feature_mlp.ndcg@10_on_ids"));
}

TEST_P(Evaluate, TheFirstScoreThatIsNotFiniteIsNamedOnAllRanks) {
  open(8);
  const TestTable pairs = read_test_table(problem);
  Parameters parameters = weights(comm);
  ParameterArray& users = parameters.arrays[0];
  const auto spoil = [&](int64_t row) {
    if (row >= users.held.begin && row < users.held.end)
      std::fill_n(users.value.begin() + (row - users.held.begin) * users.spec.cols, users.spec.cols,
                  std::nanf(""));
  };
  spoil(user_row[17]);
  spoil(user_row[5]);
  ThreadPool pool(2);
  const std::string error = user_error_of([&] {
    Evaluator(problem, pairs, comm, pool).evaluate(*predictor(parameters, comm), "step 7");
  });
  EXPECT_THAT(error, ::testing::StartsWith(fmt::format(
                         "evaluation: the score of user index 5, item index {} is nan, expected",
                         pairs.item[pairs.offsets[5]])));
}

TEST_P(Evaluate, WithoutATestTableItSaysHowToGetOne) {
  import(4, Times::kEvery, false);
  problem = open_problem(config, comm);
  EXPECT_EQ(
      user_error_of([&] { read_test_table(problem); }),
      config.data.path +
          ": the data set has no test table to evaluate on; import it again with --test TABLE");
}

TEST_P(Evaluate, ValidationIsAPlainLoopOverTheRowsHeldOut) {
  config.data.validation.fraction = .3;
  config.data.target.clip = 5;
  open(8);
  Parameters parameters = weights(comm), alone = weights(self);
  const auto samples = load_samples(problem.dataset, config, parameters.shards(), comm);
  const auto all_samples = load_samples(problem.dataset, config, {0, 8}, self);
  ThreadPool one(1), two(2);
  const ValidationResult result = validate(parameters, samples, comm, two);
  const ValidationResult alone_result = validate(alone, all_samples, self, one);

  const std::vector<std::vector<float>> arrays = arrays_of(alone, self);
  std::vector<double> labels, scores;
  std::vector<int32_t> users;
  for (const ShardSamples& shard : all_samples)
    for (const Sample& row : shard.validation) {
      users.push_back(shard.users[row.user]);
      labels.push_back(row.label);
      scores.push_back(plain_scores(arrays, users.back(), {&row.item, 1})[0]);
    }
  double squares = 0, absolute = 0, ordered = 0, orderable = 0, gauc = 0, weights_of_users = 0;
  for (size_t a = 0; a < labels.size(); ++a) {
    squares += (scores[a] - labels[a]) * (scores[a] - labels[a]);
    absolute += std::abs(scores[a] - labels[a]);
    for (size_t b = 0; b < labels.size(); ++b) {
      if (labels[a] <= labels[b]) continue;
      ++orderable;
      ordered += scores[a] > scores[b];
    }
  }
  for (int32_t user = 0; user < kSmallUsers; ++user) {
    double right = 0, pairs = 0, rows = 0;
    for (size_t a = 0; a < labels.size(); ++a) {
      rows += users[a] == user;
      for (size_t b = 0; b < labels.size(); ++b) {
        if (users[a] != user || users[b] != user || labels[a] < 2 || labels[b] >= 2) continue;
        ++pairs;
        right += scores[a] > scores[b] ? 1 : scores[a] == scores[b] ? .5 : 0;
      }
    }
    if (pairs == 0) continue;
    gauc += rows * right / pairs;
    weights_of_users += rows;
  }
  const auto rows = static_cast<double>(labels.size());
  EXPECT_GT(rows, 200);
  EXPECT_EQ(result.rows, std::ssize(labels));
  EXPECT_NEAR(result.mse, squares / rows, 1e-6);
  EXPECT_NEAR(result.rmse, std::sqrt(squares / rows), 1e-6);
  EXPECT_NEAR(result.mae, absolute / rows, 1e-6);
  EXPECT_NEAR(result.xauc.value(), ordered / orderable, 1e-4);  // a row alone may round otherwise
  EXPECT_NEAR(result.gauc.value(), gauc / weights_of_users, 1e-3);

  // On any number of ranks and threads, to the last bit.
  EXPECT_EQ(result.mse, alone_result.mse);
  EXPECT_EQ(result.mae, alone_result.mae);
  EXPECT_EQ(result.xauc, alone_result.xauc);
  EXPECT_EQ(result.gauc, alone_result.gauc);
  const ValidationResult with_one = validate(parameters, samples, comm, one);
  EXPECT_EQ(with_one.mse, result.mse);
  EXPECT_EQ(with_one.xauc, result.xauc);
  EXPECT_EQ(with_one.gauc, result.gauc);
}

TEST_P(Evaluate, ValidationOfNoRowsSaysSo) {
  config.data.validation.fraction = 0;
  open(4);
  Parameters parameters = weights(comm);
  const auto samples = load_samples(problem.dataset, config, parameters.shards(), comm);
  ThreadPool pool(1);
  const ValidationResult result = validate(parameters, samples, comm, pool);
  EXPECT_EQ(result.rows, 0);
  EXPECT_FALSE(result.gauc.has_value());
  EXPECT_FALSE(result.xauc.has_value());
}

TEST_P(Evaluate, ValidationRefusesScoresThatAreNotFiniteOnAllRanks) {
  config.data.validation.fraction = .3;
  open(4);
  Parameters parameters = weights(comm);
  const auto samples = load_samples(problem.dataset, config, parameters.shards(), comm);
  ParameterArray& users = parameters.arrays[0];
  if (users.owned.end == users.spec.rows)
    std::fill(users.value.begin(), users.value.end(), std::nanf(""));
  ThreadPool pool(1);
  EXPECT_THAT(user_error_of([&] { validate(parameters, samples, comm, pool); }),
              ::testing::HasSubstr("is nan, expected a finite number; the weights have diverged"));
}

}  // namespace
}  // namespace kt
