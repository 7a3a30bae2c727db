// What a sweep refuses, before anything runs: one message, exit 2.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <sstream>

#include "tests/support/run_program.h"

namespace kt {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

namespace fs = std::filesystem;

constexpr const char* kObjective = "objective: {metric: mse}\n";
constexpr const char* kParameters = "parameters:\n  model.embedding: [2, 3]\n";

class SweepRefusals : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-sweep-refusals");
    write_ratings(folder());
    import_ratings(folder());
    write_file(work() / "base.yaml",
               "data: {path: ../ratings}\nmodel: {name: mf}\n"
               "train: {global_batch: 64, epochs: 2}\n"
               "evaluate: {k: [2], labels: ['ratio>=3', 'ratio>=4']}\n");
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }
  static fs::path work() { return folder() / "work"; }

  static Ended sweep(const std::string& text, const Arguments& more = {}) {
    write_file(work() / "s.yaml", "config: base.yaml\n" + text);
    Arguments arguments = {"sweep", "s.yaml"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program(work(), arguments);
  }
  static void expect_refused(const std::string& text, const std::string& message,
                             const Arguments& more = {}) {
    const Ended ended = sweep(text, more);
    EXPECT_EQ(ended.code, 2) << text << ended.out << ended.err;
    EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr(message))) << text << ended.err;
    EXPECT_FALSE(fs::exists(work() / "sweeps")) << "something ran";
  }
  static void expect_refused_parameters(const std::string& parameters, const std::string& message) {
    expect_refused(std::string(kObjective) + "parameters:\n" + parameters, message);
  }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> SweepRefusals::shop_;

TEST_F(SweepRefusals, KeysThatASweepHasNot) {
  const std::string rest = std::string(kObjective) + kParameters;
  expect_refused(
      rest + "trails: {ranks: 2}\n",
      "s.yaml:5: got the unknown key trails, expected a known one; the nearest is trials");
  expect_refused(rest + "trials: {rank: 2}\n",
                 "s.yaml:5: got the unknown key trials: rank, "
                 "expected a known one; the nearest is ranks");
  expect_refused(rest + "objective: {metric: mae}\n",
                 "s.yaml:5: objective: got it a second time, expected once");
  expect_refused(rest + "max_trials: 0\n", "s.yaml:5: max_trials: got 0, expected a whole number");
  expect_refused(rest + "trials: 3\n", "s.yaml:5: trials: got 3, expected a section");
  for (const char* value : {"&a [1, *a]", "[&a [1, 2], *a]"})
    expect_refused_parameters(fmt::format("  model.embedding: {}\n", value),
                              "s.yaml:4: got an alias, expected every value where it belongs");
  expect_refused(rest + "search: {kind: bayes}\n",
                 "s.yaml:5: search: kind: got bayes, expected grid or random or halving");
  expect_refused(rest + "search: {kind: random}\n", "s.yaml:5: search: got no number of trials");
  expect_refused(rest + "search: {kind: random, trials: 2, eta: 3}\n",
                 "search: got eta with the kind random, expected it with halving alone");
  expect_refused(rest + "set: {run.dir: here}\n",
                 "s.yaml:5: run.dir: trials have folders of their own");
  expect_refused(rest, "command line: train.epoch=3: got the unknown key train.epoch",
                 {"train.epoch=3"});
}

TEST_F(SweepRefusals, AllFaultsOfAFileAtOnce) {
  const Ended ended = sweep("objective: {metric: 3, goals: min}\nmax_trials: x\n");
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.err, AllOf(HasSubstr("s.yaml:2: got the unknown key objective: goals"),
                               HasSubstr("s.yaml:3: max_trials: got x")));
}

TEST_F(SweepRefusals, FilesThatAreNone) {
  const Ended ended = run_program(work(), {"sweep", "no.yaml"});
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr("no.yaml: got no readable file")));
  expect_refused("[1", "got text that is no YAML");
}

TEST_F(SweepRefusals, AnEmptyGrid) {
  expect_refused(kObjective, "s.yaml: parameters: got none, so there is nothing to sweep over");
  expect_refused(std::string(kObjective) + "parameters: {}\n", "parameters: got none");
  expect_refused_parameters("  model.embedding: []\n",
                            "s.yaml:4: parameters: model.embedding: got [], expected a list of at "
                            "least one value");
}

TEST_F(SweepRefusals, ValuesThatTheConfigurationRefuses) {
  expect_refused_parameters("  model.embedding: [2, 0, 3]\n",
                            "s.yaml:4: model.embedding=0: model.embedding: got 0, expected a whole "
                            "number >= 1");
  expect_refused_parameters("  model.embeding: [2]\n",
                            "s.yaml:4: model.embeding=2: got the unknown key model.embeding, "
                            "expected a known one; the nearest is model.embedding");
  expect_refused_parameters("  model.dropout: [.1]\n",
                            "s.yaml:4: model.dropout=.1: model.dropout: got an option of ");
  expect_refused_parameters("  train.optimizer.momentum: [0, .9]\n",
                            "s.yaml:4: train.optimizer.momentum=.9: train.optimizer.momentum: got "
                            "train.optimizer.momentum=0.9 with train.optimizer.name=adam");
  expect_refused_parameters("  train.optimizer.lr: {uniform: [0.1, 0.2]}\n",
                            "s.yaml:4: train.optimizer.lr: got a range, expected a list of values");
  expect_refused_parameters("  train.optimizer.lr: {uniform: [2, 1]}\n",
                            "uniform: got [2, 1], expected two numbers, the lower one first");
  expect_refused_parameters("  log.every_steps: [1, 2]\n",
                            "s.yaml:4: log.every_steps: changes no result");
  expect_refused(std::string(kObjective) + kParameters,
                 "s.yaml:4: model.embedding: got it as a "
                 "parameter, but it is set for all trials",
                 {"model.embedding=3"});
}

TEST_F(SweepRefusals, DependentKeysOfNothing) {
  expect_refused_parameters("  model.embedding: {values: [2], when: {train.optimizer.name: sgd}}\n",
                            "when: got {train.optimizer.name: sgd}, expected a parameter above "
                            "this one that is a list of values");
  expect_refused_parameters(
      "  train.optimizer.name: [adam, sgd]\n"
      "  train.optimizer.momentum: {values: [.9], when: {train.optimizer.name: sdg}}\n",
      "when: got {train.optimizer.name: sdg}, expected values of train.optimizer.name as they are "
      "written there: adam, sgd");
}

TEST_F(SweepRefusals, TooManyTrials) {
  expect_refused(std::string(kObjective) + kParameters + "max_trials: 1\n",
                 "search: got over 1 trials, expected at most max_trials=1");
  expect_refused(std::string(kObjective) + kParameters + "search: {kind: random, trials: 101}\n",
                 "s.yaml:5: search: got 101 trials, expected at most max_trials=100");
}

TEST_F(SweepRefusals, ObjectivesThatThereAreNot) {
  const std::string parameters = kParameters;
  expect_refused("objective: {metric: msee}\n" + parameters,
                 "s.yaml:2: objective: got the metric msee, expected one of the validation rows "
                 "(mse, mae, mse_clipped, mae_clipped, gauc, xauc)");
  expect_refused("objective: {metric: 'ndcg@2/ratio>=4'}\n" + parameters,
                 "one of the test table is named as evaluation.ndcg@2/ratio>=4, and then selects "
                 "on test");
  expect_refused("objective: {metric: 'evaluation.ndcg@10/ratio>=4'}\n" + parameters,
                 "objective: got evaluation.ndcg@10/ratio>=4, expected a metric that an evaluation "
                 "with these evaluate.k and evaluate.labels has; the nearest is "
                 "evaluation.ndcg@2/ratio>=4");
  expect_refused("objective: {metric: mse, goal: max}\n" + parameters,
                 "objective: got the goal max with the metric mse, expected min");
  expect_refused(parameters, "objective: got none");
  expect_refused("objective: {metric: mse}\nparameters:\n  model.name: [mf, popularity]\n",
                 "objective=mse: the scores of model.name=popularity are an order alone");
  expect_refused(
      "set: {data.validation.fraction: 0, checkpoint.best: none}\nobjective: {metric: mse}\n" +
          parameters,
      "objective: got validation mse with data.validation.fraction=0");
  expect_refused("set: {evaluate.labels: [top-3]}\nobjective: {metric: gauc}\n" + parameters,
                 "objective: got gauc, but evaluate.labels has none of the form ratio>=X");
}

TEST_F(SweepRefusals, KeysThatChangeWhatIsMeasured) {
  expect_refused_parameters("  train.seed: [1, 2]\n",
                            "s.yaml:4: train.seed: changes the validation rows, so values of the "
                            "objective validation mse could not be compared");
  expect_refused_parameters("  data.filter.positive: [true, false]\n",
                            "s.yaml:4: data.filter.positive: changes the validation rows");
}

TEST_F(SweepRefusals, RungsThatCannotGrow) {
  const std::string text =
      std::string(kObjective) + kParameters + "search: {kind: halving, min_epochs: 1}\n";
  expect_refused(text, "s.yaml:5: search: got train.schedule.name=cosine as long as the run",
                 {"train.schedule.name=cosine"});
  expect_refused(text, "s.yaml:5: search: got train.max_steps=7, expected 0 with halving",
                 {"train.max_steps=7"});
  expect_refused(text, "s.yaml:5: search: got min_epochs=1 with train.epochs=1",
                 {"train.epochs=1"});
  expect_refused(
      std::string(kObjective) + "parameters:\n  train.epochs: [2, 3]\nsearch: {kind: halving}\n",
      "got train.epochs as a parameter, expected it set for all");
}

TEST_F(SweepRefusals, SeveralRanks) {
  write_file(work() / "s.yaml", std::string("config: base.yaml\n") + kObjective + kParameters);
  const Ended ended = run_program(work(), {"sweep", "s.yaml"}, {.ranks = 2});
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.errors(), SizeIs(1)) << ended.err;
}

}  // namespace
}  // namespace kt
