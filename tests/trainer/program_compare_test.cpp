// The command compare: it trains what is not trained, says what differs, and refuses what cannot be compared.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>

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
  expect_refused({"means.yaml", "--csv", "none/a.csv"}, "none/a.csv: cannot write it");
  expect_refused({"means.yaml", "--metrics", "ndcg@3/ratio>=4"},
                 "--metrics: got ndcg@3/ratio>=4, which no system here has; expected names");
}

}  // namespace
}  // namespace kt
