// Runs that are complete: shown again, evaluated anew, continued after all, and mended where a file is damaged.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "io/files/checksum.h"
#include "io/files/json_text.h"
#include "io/run/run_folder.h"
#include "tests/support/run_program.h"
#include "tests/trainer/program_outcome.h"

namespace kt {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

namespace fs = std::filesystem;

class Complete : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-complete");
    write_ratings(folder());
    write_noise(folder());
    import_ratings(folder());
    ASSERT_EQ(train("whole").code, 0);
    whole_ = result("whole");
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }

  static Ended train(const std::string& name, const Arguments& more = {}, int ranks = 0) {
    Arguments all{"train",
                  "--config",
                  KT_TINY_CONFIG,
                  "data.path=" + (folder() / "ratings").string(),
                  "run.dir=" + (folder() / name).string(),
                  "model.content=none",
                  "train.optimizer.lr=0.02",
                  "train.global_batch=32",
                  "train.epochs=3"};
    all.insert(all.end(), more.begin(), more.end());
    return run_program(folder() / "work", all, {.ranks = ranks});
  }
  static nlohmann::json result(const std::string& name) {
    return json_file(folder() / name / "result.json");
  }
  /// A copy of the whole run.
  static fs::path copy(const std::string& name) {
    const fs::path to = folder() / name;
    fs::copy(folder() / "whole", to, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    return to;
  }
  static int evaluation_lines(const std::string& name) {
    int count = 0;
    std::istringstream text(file_text(folder() / name / "metrics.jsonl"));
    for (std::string line; std::getline(text, line);)
      count += nlohmann::json::parse(line).at("kind") == "evaluation";
    return count;
  }

  static std::unique_ptr<Workshop> shop_;
  static nlohmann::json whole_;
};
std::unique_ptr<Workshop> Complete::shop_;
nlohmann::json Complete::whole_;

TEST_F(Complete, OtherEvaluationKeysEvaluateAnew) {
  copy("anew");
  for (const int ranks : {0, 2}) {
    const std::string k = fmt::format("evaluate.k=[{}]", 3 + ranks);
    const Ended ended = train("anew", {k, "evaluate.checkpoint=best"}, ranks);
    EXPECT_EQ(ended.code, 0) << ended.err;
    EXPECT_THAT(ended.out, HasSubstr("this run is complete at step"));
    EXPECT_THAT(ended.out, HasSubstr(fmt::format("@{}", 3 + ranks)));
    const nlohmann::json now = result("anew");
    EXPECT_EQ(now.at("evaluation").at("k"), nlohmann::json::array({3 + ranks}));
    EXPECT_EQ(now.at("config").at("evaluate").at("checkpoint"), "best");
    EXPECT_THAT(now.at("evaluation").at("checkpoint").get<std::string>(), HasSubstr("(best)"));
    // What is told of the training stays.
    for (const char* key :
         {"seconds", "weights_hash", "ranks", "wall_seconds", "epochs", "resumed_from"})
      EXPECT_EQ(now.at(key), whole_.at(key)) << key;
    EXPECT_EQ(evaluation_lines("anew"), 1);
  }
  const std::string before = file_text(folder() / "anew" / "result.json");
  const Ended same =
      train("anew", {"evaluate.k=[5]", "evaluate.checkpoint=best", "log.every_steps=1"});
  EXPECT_EQ(same.code, 0);
  EXPECT_THAT(same.out, HasSubstr("@5"));
  EXPECT_EQ(file_text(folder() / "anew" / "result.json"), before);
}

TEST_F(Complete, AnEvaluationFromBeforeThereWereIntervalsIsMadeAnew) {
  const fs::path dir = copy("without-intervals");
  nlohmann::json older = whole_;
  older.erase("xxh128");
  older.at("evaluation").erase("intervals");
  RunFolder(dir).write_result(older);
  EXPECT_EQ(train("without-intervals", {"evaluate.bootstrap=0"}).code, 0);
  EXPECT_TRUE(result("without-intervals").at("evaluation").at("intervals").empty());
  RunFolder(dir).write_result(older);
  EXPECT_EQ(train("without-intervals").code, 0);
  EXPECT_EQ(outcome(result("without-intervals")), outcome(whole_));
  EXPECT_FALSE(whole_.at("evaluation").at("intervals").empty());
}

TEST_F(Complete, ADamagedResultIsMadeAgain) {
  const fs::path file = copy("damaged") / "result.json";
  const std::string text = file_text(file);
  const size_t metric = text.find("\"mse\": ") + 9;  // a digit of a metric
  std::vector<std::string> injured{text.substr(0, text.size() / 2), ""};
  for (const size_t at : {metric, text.find("\"config\"") + 2})
    injured.push_back(text.substr(0, at) + (text[at] == '1' ? '2' : '1') + text.substr(at + 1));
  for (const std::string& content : injured) {
    write_file(file, content);
    const Ended ended = train("damaged");
    EXPECT_EQ(ended.code, 0) << ended.err << content.substr(0, 200);
    EXPECT_THAT(ended.err, HasSubstr("result.json: is damaged or was changed: "));
    EXPECT_EQ(outcome(result("damaged")), outcome(whole_));
    EXPECT_EQ(evaluation_lines("damaged"), 1);
  }
  EXPECT_THAT(train("damaged", {}, 2).err, Not(HasSubstr("damaged or was changed")));
}

TEST_F(Complete, AResultOfAnEarlierEndIsNotShown) {
  // Killed after the last checkpoint of a run that grew, before its result.
  const fs::path dir = copy("stale");
  const std::string before = file_text(dir / "result.json");
  ASSERT_EQ(train("stale", {"train.epochs=4"}, 2).code, 0);
  const nlohmann::json grown = result("stale");
  write_file(dir / "result.json", before);
  const Ended ended = train("stale", {"train.epochs=4"});
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_EQ(outcome(result("stale")), outcome(grown));
  EXPECT_EQ(evaluation_lines("stale"), 2);  // one an end
}

TEST_F(Complete, WhatIsDamagedInTheFolderIsMendedOrNamed) {
  const fs::path dir = copy("folder");
  const std::string identity = file_text(dir / "identity.json");
  for (const std::string& content :
       {identity.substr(0, 40), std::string("[1]"), std::string("{\"train.seed\": 9}")}) {
    write_file(dir / "identity.json", content);
    const Ended ended = train("folder");
    EXPECT_EQ(ended.code, 0) << ended.err;
    EXPECT_THAT(ended.err, HasSubstr("identity.json: is damaged, and written again as the "
                                     "checkpoints have it"));
    EXPECT_EQ(file_text(dir / "identity.json"), identity);
  }
  write_file(dir / "config.yaml", "\x01{[");
  write_file(dir / "metrics.jsonl",
             "{\"step\":1e999}\n[]\n\xff\n{\"step\":\"2\"}\n{\"step\":3,\"kind\":4}\n{");
  fs::remove(dir / "result.json");
  EXPECT_EQ(train("folder").code, 0);
  EXPECT_THAT(file_text(dir / "config.yaml"), HasSubstr("train:\n  epochs: 3\n"));
  // Without a checkpoint that tells it, nothing is taken for granted.
  fs::remove_all(dir / "checkpoints");
  write_file(dir / "identity.json", "{");
  const Ended ended = train("folder");
  EXPECT_EQ(ended.code, 2);
  ASSERT_THAT(ended.errors(), SizeIs(1));
  EXPECT_THAT(ended.errors()[0], HasSubstr("identity.json: is damaged: "));
}

/// A document with a checksum of one of its members, made anew for what `change` makes of it.
void rewrite(const fs::path& manifest, const std::function<void(nlohmann::json&)>& change) {
  nlohmann::json content = json_file(manifest).at("content");
  change(content);
  const std::string text = to_text(content);
  write_file(manifest,
             to_text({{"content", content}, {"xxh128", checksum(std::as_bytes(std::span(text)))}}));
}

TEST_F(Complete, ARunFromBeforeAKeyGoesOn) {
  const fs::path dir = copy("older");
  const auto forget = [](nlohmann::json& identity) {
    for (const char* key : {"metric", "factor", "patience", "min_lr"})
      ASSERT_EQ(identity.erase(std::string("train.plateau.") + key), 1u);
  };
  nlohmann::json identity = json_file(dir / "identity.json");
  forget(identity);
  write_file(dir / "identity.json", identity.dump());
  for (const std::string& name : names_in(dir / "checkpoints"))
    rewrite(dir / "checkpoints" / name / "manifest.json",
            [&](nlohmann::json& content) { forget(content.at("state").at("identity")); });
  nlohmann::json older = result("older");
  older.erase("xxh128");
  ASSERT_EQ(older.at("config").at("evaluate").erase("labels"), 1u);
  RunFolder(dir).write_result(older);

  const Ended shown = train("older");
  EXPECT_EQ(shown.code, 0) << shown.err;
  EXPECT_THAT(shown.out, HasSubstr("this run is complete at step"));
  EXPECT_FALSE(result("older").at("config").at("evaluate").contains("labels"));  // as it was
  EXPECT_EQ(run_program(folder() / "work", {"evaluate", dir.string()}).code, 0);

  const Ended other = train("older", {"train.plateau.factor=0.3"});
  EXPECT_EQ(other.code, 2);
  EXPECT_THAT(other.err, HasSubstr("train.plateau.factor: stored none, so its default "
                                   "0.5, now 0.3"));
  ASSERT_EQ(train("older", {"train.epochs=4"}).code, 0);
  ASSERT_EQ(train("newer", {"train.epochs=4"}).code, 0);
  EXPECT_THAT(result("older").at("resumed_from"), SizeIs(1));
  EXPECT_EQ(outcome(result("older")), outcome(result("newer")));
}

TEST_F(Complete, AnEarlyStopSaysSoAndMorePatienceGoesOn) {
  const Arguments early{"train.epochs=8", "train.early_stop.metric=mse"};
  const auto with = [&](Arguments more) {
    more.insert(more.begin(), early.begin(), early.end());
    return more;
  };
  const Ended first = train("early", with({"train.early_stop.patience=1"}), 2);
  ASSERT_EQ(first.code, 0) << first.err;
  ASSERT_TRUE(result("early").at("stopped_early").get<bool>());
  const int stop = result("early").at("steps");
  for (const char* epochs : {"train.epochs=8", "train.epochs=20"}) {
    const Ended again = train("early", with({epochs, "train.early_stop.patience=1"}));
    EXPECT_EQ(again.code, 0) << again.err;
    EXPECT_THAT(again.out,
                HasSubstr(fmt::format("this run is complete at step {}; nothing to train: it "
                                      "stopped early, as train.early_stop.patience=1 says",
                                      stop)));
  }
  const Ended on = train("early", with({"train.early_stop.patience=100"}));
  EXPECT_EQ(on.code, 0) << on.err;
  EXPECT_EQ(result("early").at("resumed_from"), nlohmann::json::array({stop}));
  EXPECT_FALSE(result("early").at("stopped_early").get<bool>());
  ASSERT_EQ(train("patient", with({"train.early_stop.patience=100"})).code, 0);
  EXPECT_EQ(outcome(result("early")), outcome(result("patient")));
}

}  // namespace
}  // namespace kt
