// The command compare: it trains what is not trained, says what differs, and refuses what cannot be compared.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/run_program.h"

namespace kt {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

namespace fs = std::filesystem;

class ProgramCompare : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-compare");
    write_ratings(folder());
    import_ratings(folder());
    fs::create_directories(folder() / "work");
    const std::string common =
        "data: {path: ../ratings}\nevaluate: {k: [2], labels: ['ratio>=3', 'ratio>=4']}\n";
    write_file(folder() / "work" / "means.yaml", common + "model: {name: additive_means}\n");
    write_file(folder() / "work" / "factors.yaml",
               common + "model: {name: mf}\ntrain: {global_batch: 64, epochs: 1}\n");
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }
  static fs::path work() { return folder() / "work"; }
  static Ended compare(Arguments arguments, int ranks = 0) {
    arguments.insert(arguments.begin(), "compare");
    return run_program(work(), arguments, {.ranks = ranks});
  }
  static void expect_refused(const Arguments& arguments, const std::string& message) {
    const Ended ended = compare(arguments);
    EXPECT_EQ(ended.code, 2) << ended.out << ended.err;
    EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr(message))) << ended.err;
  }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> ProgramCompare::shop_;

/// All that ranks must not change.
json without_costs(json document) {
  for (json& system : document.at("systems"))
    for (const char* key : {"train_seconds", "evaluate_seconds", "peak_memory_bytes"})
      system.erase(key);
  return document;
}

TEST_F(ProgramCompare, TrainsOnceAndComparesOnAnyNumberOfRanks) {
  const Arguments all = {"means.yaml", "factors.yaml", "--seeds", "2",
                         "--json",     "--csv",        "out.csv"};
  const Ended first = compare(all);
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(first.err, HasSubstr("diff: less means, on"));
  const json document = json::parse(first.out);
  ASSERT_THAT(document.at("systems"), SizeIs(2));
  const json& factors = document.at("systems").at(1);
  EXPECT_EQ(factors.at("seeds"), json({1, 2}));
  ASSERT_THAT(factors.at("runs"), SizeIs(2));
  EXPECT_NE(factors.at("runs").at(0), factors.at("runs").at(1));
  EXPECT_GT(factors.at("train_seconds"), 0);
  EXPECT_GT(factors.at("peak_memory_bytes"), 1'000'000);
  const json& metric = factors.at("metrics").at("ndcg@2/ratio>=4");
  EXPECT_GT(metric.at("spread"), 0);
  EXPECT_EQ(metric.at("difference").at("to"), "means");
  double mean = 0;
  std::map<std::string, std::string> results;
  for (const json& run : factors.at("runs")) {
    const fs::path file = work() / run.get<std::string>() / "result.json";
    results[run] = file_text(file);
    mean += json_file(file).at("evaluation").at("metrics").at("ndcg@2/ratio>=4").get<double>() / 2;
  }
  EXPECT_DOUBLE_EQ(metric.at("mean"), mean);
  EXPECT_THAT(file_text(work() / "out.csv"), HasSubstr("\nfactors,ndcg@2/ratio>=4,"));

  const Ended again = compare(all, 2);
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(without_costs(json::parse(again.out)), without_costs(document));
  for (const auto& [run, text] : results)
    EXPECT_EQ(file_text(work() / run / "result.json"), text) << "trained again";

  // Runs as they are, by other metrics.
  const std::string run = factors.at("runs").at(1);
  const Ended runs = compare({document.at("systems").at(0).at("runs").at(0), run, "--metrics",
                              "auc@ratio>=4,mae", "--json"});
  ASSERT_EQ(runs.code, 0) << runs.err;
  const json second = json::parse(runs.out).at("systems").at(1);
  EXPECT_EQ(second.at("seeds"), json({2}));
  EXPECT_EQ(second.at("runs"), json({run}));
  EXPECT_FALSE(second.at("metrics").at("auc@ratio>=4").contains("interval"));
  EXPECT_TRUE(second.at("metrics").at("mae").contains("difference"));
  EXPECT_THAT(second.at("metrics"), SizeIs(2));
}

/// Of each pair of a file of scores.
std::vector<double> scores_in(const fs::path& file) {
  std::vector<double> scores;
  std::istringstream lines(file_text(file));
  std::string line;
  std::getline(lines, line);
  while (std::getline(lines, line)) scores.push_back(std::stod(line.substr(line.rfind(',') + 1)));
  return scores;
}

TEST_F(ProgramCompare, BlendsRunsIntoASystemOfItsOwn) {
  const Ended compared = compare({"means.yaml", "factors.yaml", "--blend", "--weights",
                                  "validation", "--seeds", "2", "--json"});
  ASSERT_EQ(compared.code, 0) << compared.err;
  const json systems = json::parse(compared.out).at("systems");
  ASSERT_THAT(systems, SizeIs(3));
  EXPECT_EQ(systems.at(2).at("name"), "blend");
  ASSERT_THAT(systems.at(2).at("runs"), SizeIs(2));
  EXPECT_TRUE(systems.at(2).at("metrics").at("ndcg@2/ratio>=4").contains("difference"));

  const std::string means = systems.at(0).at("runs").at(0),
                    factors = systems.at(1).at("runs").at(0);
  const auto evaluate = [&](Arguments arguments, int ranks = 0) {
    arguments.insert(arguments.begin(), "evaluate");
    return run_program(work(), arguments, {.ranks = ranks});
  };
  ASSERT_EQ(evaluate({means, "--scores", "means.csv"}).code, 0);
  ASSERT_EQ(evaluate({factors, "--scores", "factors.csv"}).code, 0);
  const Ended blended = evaluate(
      {means, factors, "--blend", "--weights", ".75,.5", "--scores", "blend.csv", "--json"}, 2);
  ASSERT_EQ(blended.code, 0) << blended.err;
  const std::vector<double> a = scores_in(work() / "means.csv"),
                            b = scores_in(work() / "factors.csv"),
                            sum = scores_in(work() / "blend.csv");
  ASSERT_EQ(sum.size(), a.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(sum[i], .75 * a[i] + .5 * b[i], 1e-6);
  const json blend = json::parse(blended.out).at("blend");
  EXPECT_EQ(blend.at("runs").at(1).at("system"), "mf");
  EXPECT_EQ(blend.at("runs").at(1).at("weight"), .5);

  // Weights of the held-out rows, the same on any number of ranks; an order alone has no errors.
  const Arguments fitted{means, factors, "--blend", "--weights", "validation", "--json"};
  const json one = json::parse(evaluate(fitted).out), two = json::parse(evaluate(fitted, 2).out);
  EXPECT_EQ(one.at("blend"), two.at("blend"));
  EXPECT_EQ(one.at("metrics"), two.at("metrics"));
  const Ended ranks = evaluate({means, factors, "--blend", "--of", "ranks", "--json"});
  ASSERT_EQ(ranks.code, 0) << ranks.err;
  EXPECT_FALSE(json::parse(ranks.out).at("metrics").contains("mse"));

  const Ended list = run_program(
      work(), {"recommend", means, factors, "--blend", "--user", "user 3", "--top", "3", "--json"});
  ASSERT_EQ(list.code, 0) << list.err;
  EXPECT_THAT(json::parse(list.out).at("recommendations"), SizeIs(3));

  const auto expect_refused = [&](const Arguments& arguments, const std::string& message) {
    const Ended ended = evaluate(arguments);
    EXPECT_EQ(ended.code, 2) << ended.out << ended.err;
    EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr(message))) << ended.err;
  };
  expect_refused({means, factors}, "got 2 runs; to score them as one, add --blend");
  expect_refused({means, "--blend"}, "--blend: got one run, expected two or more");
  expect_refused({means, "--of", "ranks"}, "--of and --weights are those of a --blend");
  expect_refused({means, factors, "--blend", "--weights", "1"}, "got 1 numbers for 2 runs");
  expect_refused({means, factors, "--blend", "--weights", "1,x"},
                 "--weights: got 1,x, expected equal");
  expect_refused({means, factors, "--blend", "--of", "votes"},
                 "--of: got votes, expected scores or ranks");
  expect_refused({"data.path=../ratings"}, "got no run, expected the folder of one");
  const std::string other = systems.at(1).at("runs").at(1);
  expect_refused({means, other, "--blend", "--weights", "validation"}, "holds other rows out than");
}

TEST_F(ProgramCompare, ReranksARunAsASystemOfItsOwn) {
  const Ended compared = compare({"means.yaml", "factors.yaml", "--rerank", "3", "--json"});
  ASSERT_EQ(compared.code, 0) << compared.err;
  const json systems = json::parse(compared.out).at("systems");
  ASSERT_THAT(systems, SizeIs(3));
  EXPECT_EQ(systems.at(2).at("name"), "rerank-3");
  EXPECT_TRUE(systems.at(2).at("metrics").at("ndcg@2/ratio>=4").contains("difference"));
  const std::string means = systems.at(0).at("runs").at(0),
                    factors = systems.at(1).at("runs").at(0);
  const auto evaluate = [&](Arguments arguments, int ranks = 0) {
    arguments.insert(arguments.begin(), "evaluate");
    arguments.emplace_back("--json");
    return run_program(work(), arguments, {.ranks = ranks});
  };
  const auto metrics = [&](const Arguments& arguments, int ranks = 0) {
    return json::parse(evaluate(arguments, ranks).out).at("metrics");
  };
  const Ended one = evaluate({means, factors, "--rerank", "3"});
  ASSERT_EQ(one.code, 0) << one.err;
  const json report = json::parse(one.out);
  EXPECT_EQ(report.at("rerank").at("top"), 3);
  EXPECT_EQ(report.at("rerank").at("runs").at(1).at("system"), "mf");
  EXPECT_FALSE(report.at("metrics").contains("mse"));
  EXPECT_EQ(metrics({means, factors, "--rerank", "3"}, 2), report.at("metrics"));
  // Of one, the order is the base's; of all, the ranker's. Of the catalogue too.
  for (const char* candidates : {"observed", "catalogue"}) {
    const std::string key = std::string("evaluate.candidates=") + candidates;
    const json base = metrics({means, key}), ranker = metrics({factors, key}),
               first = metrics({means, factors, key, "--rerank", "1"}),
               all = metrics({means, factors, key, "--rerank", "100000"});
    for (const char* name : {"ndcg@2/ratio>=4", "gauc@ratio>=4"}) {
      EXPECT_EQ(first.at(name), base.at(name));
      EXPECT_EQ(all.at(name), ranker.at(name));
    }
    EXPECT_NE(base.at("gauc@ratio>=4"), ranker.at("gauc@ratio>=4"));
  }
  const Ended list = run_program(work(), {"recommend", means, factors, "--rerank", "3", "--user",
                                          "user 3", "--top", "5", "--json"});
  ASSERT_EQ(list.code, 0) << list.err;
  EXPECT_THAT(json::parse(list.out).at("recommendations"), SizeIs(5));

  const auto expect_refused = [&](const Arguments& arguments, const std::string& message) {
    const Ended ended = evaluate(arguments);
    EXPECT_EQ(ended.code, 2) << ended.out << ended.err;
    EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr(message))) << ended.err;
  };
  expect_refused({means, "--rerank", "3"},
                 "--rerank: got 1 run, expected two: the base, then the ranker");
  expect_refused({means, factors, "--rerank", "3", "--blend"},
                 "--rerank: got --blend beside it, expected one of the two");
  expect_refused({means, factors, "--rerank", "0"}, "--rerank");
}

TEST_F(ProgramCompare, RefusesWhatCannotBeCompared) {
  const std::string common = "data: {path: ../ratings, validation: {fraction: 0.5}}\n";
  write_file(work() / "other.yaml", common +
                                        "model: {name: additive_means}\n"
                                        "evaluate: {k: [2], labels: ['ratio>=3', 'ratio>=4']}\n");
  expect_refused({"means.yaml", "other.yaml"},
                 "compare: data.validation.fraction is 0.1 in means.yaml and 0.5 in other.yaml; "
                 "systems are compared on one data set and split");
  expect_refused({"means.yaml", "none.yaml"}, "compare: got none.yaml, expected the YAML file");
  expect_refused({"means.yaml", ".."}, "..: no config.yaml there; expected the folder of a run");
  expect_refused({"means.yaml", "run.dir=here"},
                 "run.dir=here: the folders of compared runs have names of their own");
  expect_refused({"train.seed=3"}, "compare: got no systems");
  expect_refused({"means.yaml", "factors.yaml", "means.yaml", "--rerank", "3"},
                 "--rerank: got 3 runs, expected two: the base, then the ranker");
  expect_refused({"means.yaml", "--csv", "none/a.csv"}, "none/a.csv: cannot write it");
  expect_refused({"means.yaml", "--metrics", "ndcg@3/ratio>=4"},
                 "--metrics: got ndcg@3/ratio>=4, which no system here has; expected names");
}

}  // namespace
}  // namespace kt
