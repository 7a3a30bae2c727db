// The command sweep: every trial ends once, whoever trains it and whatever kills that, and the leaderboard is the same.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/run_program.h"
#include "trainer/sweeps/objective.h"

namespace kt {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

namespace fs = std::filesystem;

constexpr const char* kBase =
    "data: {path: ../ratings}\n"
    "model: {name: mf, embedding: 4}\n"
    "train: {global_batch: 64, epochs: 2}\n"
    "evaluate: {k: [2], labels: ['ratio>=3', 'ratio>=4']}\n";
constexpr const char* kGrid =
    "objective: {metric: mse}\n"
    "parameters:\n"
    "  train.optimizer.lr: [1e-3, 1e-1]\n"
    "  train.optimizer.name: [adam, sgd]\n"
    "  train.optimizer.momentum: {values: [0, .9], when: {train.optimizer.name: sgd}}\n";
constexpr size_t kTrialsOfGrid = 6;
constexpr const char* kHalving =
    "set: {train.epochs: 9}\n"
    "objective: {metric: mse}\n"
    "search: {kind: halving, trials: 9, seed: 3}\n"
    "parameters:\n"
    "  train.optimizer.lr: {log_uniform: [1e-4, 1e-1]}\n"
    "  model.embedding: {uniform: [2, 9]}\n";

class ProgramSweep : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-sweep");
    write_ratings(folder());
    import_ratings(folder());
    write_file(folder() / "work" / "base.yaml", kBase);
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }
  static fs::path work() { return folder() / "work"; }

  /// The file of a sweep into the folder `name`. Returns its name.
  static std::string sweep_file(const std::string& name, const std::string& text) {
    const std::string file = name + ".yaml";
    write_file(work() / file,
               fmt::format("config: base.yaml\nfolder: {}\n{}", (folder() / name).string(), text));
    return file;
  }
  static Ended sweep(const std::string& file, const Arguments& more = {}) {
    Arguments arguments = {"sweep", file};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program(work(), arguments);
  }

  /// The sweep by halving that others are compared with, by one worker that nothing happened to.
  static std::string halving() {
    static const int code = sweep(sweep_file("halving", kHalving)).code;
    EXPECT_EQ(code, 0);
    return "halving";
  }

  /// The same of the grid.
  static std::string grid() {
    static const int code = sweep(sweep_file("whole-grid", kGrid)).code;
    EXPECT_EQ(code, 0);
    return "whole-grid";
  }

  /// What of a sweep must not depend on how it was run.
  static json outcome(const std::string& name) {
    json board = json_file(folder() / name / "leaderboard.json");
    board.erase("sweep");
    for (json& trial : board.at("trials")) trial.erase("seconds");
    json hashes = json::object();
    for (const json& trial : board.at("trials")) {
      const std::string hash = trial.at("trial");
      const fs::path result = folder() / name / "trials" / hash / "run" / "result.json";
      if (fs::exists(result)) hashes[hash] = json_file(result).at("weights_hash");
    }
    board["weights"] = hashes;
    return board;
  }
  /// The attempts that every trial took, by its hash.
  static json attempts(const std::string& name) {
    json counts = json::object();
    for (const std::string& trial : names_in(folder() / name / "trials"))
      counts[trial] = std::ranges::count_if(
          names_in(folder() / name / "trials" / trial),
          [](const std::string& file) { return file.starts_with("attempt-"); });
    return counts;
  }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> ProgramSweep::shop_;

TEST_F(ProgramSweep, AGridTrainsEveryTrialOnce) {
  const std::string file = sweep_file("grid", kGrid);
  const Ended before = sweep(file, {"--status"});
  ASSERT_EQ(before.code, 0) << before.err;
  EXPECT_THAT(before.out, HasSubstr("6 trials: 6 waiting"));
  EXPECT_FALSE(fs::exists(folder() / "grid"));

  const Ended first = sweep(file, {"--json"});
  ASSERT_EQ(first.code, 0) << first.err;
  const json board = json::parse(first.out);
  EXPECT_EQ(board, json_file(folder() / "grid" / "leaderboard.json"));
  ASSERT_THAT(board.at("trials"), SizeIs(kTrialsOfGrid));
  EXPECT_EQ(board.at("counts").at("finished"), kTrialsOfGrid);
  EXPECT_EQ(board.at("complete"), true);
  EXPECT_GT(board.at("importance").at("train.optimizer.lr").at("share"), .1);
  double last = 0;
  for (const json& trial : board.at("trials")) {
    // The leaderboard is of what runs say.
    const std::string hash = trial.at("trial");
    const json result = json_file(folder() / "grid" / "trials" / hash / "run" / "result.json");
    EXPECT_EQ(trial.at("objective"), result.at("epochs").at(1).at("validation").at("mse"));
    EXPECT_EQ(trial.at("steps"), result.at("steps"));
    EXPECT_EQ(trial.at("values").at("train.optimizer.lr"),
              result.at("config").at("train").at("optimizer").at("lr"));
    EXPECT_EQ(trial.at("values").at("train.optimizer.momentum").is_null(),
              trial.at("values").at("train.optimizer.name") == "adam");
    EXPECT_GE(trial.at("objective"), last);
    last = trial.at("objective");
  }
  const std::string csv = file_text(folder() / "grid" / "leaderboard.csv");
  EXPECT_THAT(csv, HasSubstr("place,trial,mse,epochs,steps,seconds,state,train.optimizer.lr,"));
  EXPECT_EQ(std::ranges::count(csv, '\n'), 7);

  const json once = attempts("grid");
  for (const auto& [trial, count] : once.items()) EXPECT_EQ(count, 1) << trial;
  ASSERT_EQ(sweep(file).code, 0);
  EXPECT_EQ(attempts("grid"), once) << "trained again";

  // A sweep that grows takes what is there.
  ASSERT_EQ(sweep(sweep_file("grid", std::string(kGrid) + "  model.embedding: [4, 6]\n")).code, 0);
  json grown = attempts("grid");
  EXPECT_THAT(grown, SizeIs(2 * kTrialsOfGrid));
  for (const auto& [trial, count] : grown.items()) EXPECT_EQ(count, 1) << trial;
}

TEST_F(ProgramSweep, TheBestConfigurationIsReadyToTrain) {
  const fs::path best = folder() / grid() / "best.yaml";
  const json first = json_file(folder() / grid() / "leaderboard.json").at("trials").at(0);
  EXPECT_THAT(file_text(best),
              AllOf(HasSubstr("by validation mse: "), HasSubstr(first.at("trial"))));
  const Ended ended = run_program(
      work(), {"--config", best.string(), "run.dir=" + (folder() / "trained").string()});
  ASSERT_EQ(ended.code, 0) << ended.err;
  const json result = json_file(folder() / "trained" / "result.json");
  EXPECT_EQ(result.at("epochs").at(1).at("validation").at("mse"), first.at("objective"));
  EXPECT_TRUE(result.at("evaluation").contains("intervals"));
}

TEST_F(ProgramSweep, ThreeWorkersAtOnceMakeWhatOneMakes) {
  const std::string file = (work() / sweep_file("together", kHalving)).string();
  std::vector<std::unique_ptr<Program>> workers;
  for (int k = 0; k < 3; ++k)
    workers.push_back(std::make_unique<Program>(
        folder() / fmt::format("work-{}", k),
        Arguments{"sweep", file, "data.path=" + (folder() / "ratings").string()}));
  for (const auto& worker : workers) {
    const Ended ended = worker->wait();
    EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
    EXPECT_THAT(ended.out, HasSubstr("9 trials: 9 finished"));
  }
  EXPECT_EQ(outcome("together"), outcome(halving()));
  EXPECT_EQ(attempts("together"), attempts(halving()));
}

TEST_F(ProgramSweep, HalvingGoesOnFromCheckpoints) {
  halving();
  const json board = json_file(folder() / "halving" / "leaderboard.json");
  EXPECT_EQ(board.at("rungs"), json({1, 3, 9}));
  ASSERT_THAT(board.at("trials"), SizeIs(9));
  std::vector<int> epochs;
  for (const json& trial : board.at("trials")) epochs.push_back(trial.at("epochs"));
  EXPECT_EQ(epochs, (std::vector<int>{9, 3, 3, 1, 1, 1, 1, 1, 1}));
  const json& best = board.at("trials").at(0);
  const std::string hash = best.at("trial");
  const json result = json_file(folder() / "halving" / "trials" / hash / "run" / "result.json");
  const int64_t steps_of_epoch = result.at("steps").get<int64_t>() / 9;
  EXPECT_EQ(result.at("resumed_from"), json({steps_of_epoch, 3 * steps_of_epoch}));
  EXPECT_EQ(board.at("steps"), steps_of_epoch * (9 + 2 * 3 + 6));
  // As a run that was never cut.
  const Ended whole =
      run_program(work(), {"--config", (folder() / "halving" / "best.yaml").string(),
                           "evaluate.bootstrap=0", "run.dir=" + (folder() / "whole").string()});
  ASSERT_EQ(whole.code, 0) << whole.err;
  EXPECT_EQ(json_file(folder() / "whole" / "result.json").at("weights_hash"),
            result.at("weights_hash"));
}

/// Waits until the sweep has an attempt of a trial after the first `ended` ended ones.
void wait_for_attempt(Program& worker, const fs::path& sweep, int64_t ended) {
  worker.wait_until([&] {
    if (!fs::exists(sweep / "trials")) return false;
    int64_t open = 0, done = 0;
    for (const std::string& trial : names_in(sweep / "trials")) {
      const fs::path attempt = sweep / "trials" / trial / "attempt-1.json";
      if (!fs::exists(attempt)) continue;
      ++(file_text(attempt).find("\"exit\"") == std::string::npos ? open : done);
    }
    return done >= ended && open > 0;
  });
}

TEST_F(ProgramSweep, AKilledWorkerLosesNothing) {
  const std::string file = sweep_file("killed", kHalving);
  for (const int64_t ended : {2, 5}) {
    Program worker(work(), {"sweep", file});
    wait_for_attempt(worker, folder() / "killed", ended);
    const std::vector<pid_t> trials = worker.ranks();
    worker.signal(SIGKILL);
    EXPECT_EQ(worker.wait().code, 128 + SIGKILL);
    for (const pid_t trial : trials) expect_gone(trial);
  }
  const Ended again = sweep(file);
  ASSERT_EQ(again.code, 0) << again.out << again.err;
  EXPECT_EQ(outcome("killed"), outcome(halving()));
}

TEST_F(ProgramSweep, AskedToStopItSavesAndGoesOn) {
  const std::string file = sweep_file("stopped", kGrid);
  int64_t before = 0;
  for (const int number : {SIGUSR2, SIGTERM, SIGINT}) {
    Program worker(work(), {"sweep", file});
    wait_for_attempt(worker, folder() / "stopped", before);
    worker.signal(number);
    const Ended ended = worker.wait();
    EXPECT_EQ(ended.code, 85) << ended.out << ended.err;
    EXPECT_THAT(ended.out + ended.err, HasSubstr("run the same command again to continue"));
    ++before;
  }
  const Ended last = sweep(file);
  ASSERT_EQ(last.code, 0) << last.err;
  EXPECT_EQ(outcome("stopped"), outcome(grid()));
}

TEST_F(ProgramSweep, AFailedTrialIsToldAndTriedAgainAsConfigured) {
  const std::string text =
      "objective: {metric: mse}\n"
      "trials: {retries: RETRIES}\n"
      "parameters:\n  train.optimizer.lr: [1e-2, 1e30]\n";
  const auto with = [&](const char* retries) {
    return sweep_file("failing", std::string(text).replace(text.find("RETRIES"), 7, retries));
  };
  const Ended ended = sweep(with("1"));
  ASSERT_EQ(ended.code, 0) << ended.err;
  EXPECT_THAT(ended.err, HasSubstr("exit 2 (attempt 2): error: step "));
  EXPECT_THAT(ended.out, HasSubstr("2 trials: 1 finished, 1 failed"));
  json board = json_file(folder() / "failing" / "leaderboard.json");
  EXPECT_EQ(board.at("trials").at(1).at("state"), "failed");
  EXPECT_THAT(board.at("trials").at(1).at("fault"), HasSubstr("train.optimizer.lr"));
  const std::string failed = board.at("trials").at(1).at("trial");
  EXPECT_EQ(attempts("failing").at(failed), 2);
  ASSERT_EQ(sweep(with("1")).code, 0);
  EXPECT_EQ(attempts("failing").at(failed), 2) << "tried more often than configured";
  ASSERT_EQ(sweep(with("2")).code, 0);
  EXPECT_EQ(attempts("failing").at(failed), 3);

  const Ended none = sweep(
      sweep_file("all-failing",
                 "objective: {metric: mse}\nparameters:\n  train.optimizer.lr: [1e29, 1e30]\n"));
  EXPECT_EQ(none.code, 2);
  EXPECT_THAT(none.errors(), SizeIs(1)) << none.err;
  EXPECT_THAT(none.err, HasSubstr("none of 2 trials has a value of validation mse"));
}

TEST_F(ProgramSweep, RanksOfATrialChangeNoBit) {
  const std::string one = "objective: {metric: mse}\nparameters:\n  model.embedding: [2, 3]\n";
  ASSERT_EQ(sweep(sweep_file("one-rank", one)).code, 0);
  const Ended two =
      sweep(sweep_file("two-ranks", one + "trials: {ranks: 2, at_once: 2, launcher: \"" KT_MPIRUN
                                          " --oversubscribe --bind-to none\"}\n"));
  ASSERT_EQ(two.code, 0) << two.err;
  EXPECT_EQ(outcome("two-ranks"), outcome("one-rank"));
}

TEST_F(ProgramSweep, AnObjectiveOfTheTestTableIsMarked) {
  const std::string file =
      sweep_file("on-test",
                 "objective: {metric: 'evaluation.ndcg@2/ratio>=4'}\nparameters:\n  "
                 "model.embedding: [2, 3]\n");
  const Ended ended = sweep(file);
  ASSERT_EQ(ended.code, 0) << ended.err;
  EXPECT_THAT(ended.out, HasSubstr("ndcg@2/ratio>=4 (selected on test), larger is better"));
  const json board = json_file(folder() / "on-test" / "leaderboard.json");
  EXPECT_THAT(board.at("objective").at("of"), HasSubstr("selected on test"));
  EXPECT_GE(board.at("trials").at(0).at("objective"), board.at("trials").at(1).at("objective"));
  EXPECT_THAT(file_text(folder() / "on-test" / "leaderboard.csv"), HasSubstr("selected on test"));
  EXPECT_THAT(file_text(folder() / "on-test" / "best.yaml"), HasSubstr("selected on test"));
  // The names that an objective may have are those of an evaluation.
  const std::string hash = board.at("trials").at(0).at("trial");
  const json result = json_file(folder() / "on-test" / "trials" / hash / "run" / "result.json");
  Config::Evaluate evaluate{.k = {2}, .labels = {"ratio>=3", "ratio>=4"}};
  const std::vector<std::string> names = evaluation_metrics(evaluate);
  const json& metrics = result.at("evaluation").at("metrics");
  for (const auto& [name, value] : metrics.items())
    EXPECT_NE(std::ranges::find(names, name), names.end()) << name;
  std::vector<std::string> absent;
  for (const std::string& name : names)
    if (!metrics.contains(name)) absent.push_back(name);
  // Of lists of 50, and of ids that are numbers: this data has neither.
  EXPECT_THAT(absent, ElementsAre("ncf.hit_ratio@50", "ncf.ndcg@50_ideal_of_retrieved",
                                  "feature_mlp.ndcg@10_on_ids",
                                  "feature_mlp.ndcg@10_on_ids_rounded", "cosine.jaccard@50"));
}

// Every sweep of the project, with two trials and two epochs.
TEST_F(ProgramSweep, TheSweepsOfTheProjectRun) {
  make_replica(folder() / "replica", 16);
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(KT_CONFIGS) / "sweeps")) {
    if (entry.path().extension() != ".yaml") continue;
    const Arguments overrides = {"data.path=" + (folder() / "replica" / "dataset").string(),
                                 "train.schedule.name=constant"};
    Arguments status = {"sweep", entry.path().string(), "--status"};
    status.insert(status.end(), overrides.begin(), overrides.end());
    const Ended loads = run_program(work(), status);
    EXPECT_EQ(loads.code, 0) << entry.path() << loads.err;

    std::istringstream lines(file_text(entry.path()));
    std::string tiny;
    int keys = 0;
    for (std::string line; std::getline(lines, line);) {
      if (const size_t at = line.find("trials: 2"); at != line.npos)
        line.replace(at, 10, "trials: 3");
      if (line.starts_with("  train.epochs: [") || line.starts_with("folder:")) continue;
      if (const size_t at = line.find("values: ["); at != line.npos)
        line.erase(line.find(", ", at), line.find(']', at) - line.find(", ", at));
      if (const size_t at = line.find("config: "); at != line.npos)
        line = "config: " + (entry.path().parent_path() / line.substr(at + 8)).string();
      // Of a grid, the first and last value of two keys, of others the first.
      const size_t open = line.find(": [");
      const size_t first = line.find(", "), end = line.rfind(", ");
      if (open != line.npos && first != line.npos && first > open && line.find("[[") == line.npos &&
          line.find('{') == line.npos && line.find("model.name") == line.npos)
        line.erase(first, (keys++ < 2 ? end : line.rfind(']')) - first);
      tiny += line + "\n";
    }
    const std::string name = "tiny-" + entry.path().stem().string() + std::to_string(files);
    write_file(work() / (name + ".yaml"), tiny);
    Arguments arguments = {"sweep", name + ".yaml", "train.epochs=2", "evaluate.k=[5]"};
    arguments.insert(arguments.end(), overrides.begin(), overrides.end());
    const Ended ended = run_program(work(), arguments);
    EXPECT_EQ(ended.code, 0) << tiny << ended.out << ended.err;
    EXPECT_TRUE(fs::exists(work() / "sweeps" / name / "best.yaml")) << tiny;
    EXPECT_THAT(ended.out, Not(HasSubstr("failed"))) << tiny;
    ++files;
  }
  EXPECT_GE(files, 12);
}

}  // namespace
}  // namespace kt
