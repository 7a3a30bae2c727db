#include "io/run/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "io/config/identity.h"
#include "io/config/reader.h"
#include "io/files/files.h"
#include "io/run/checkpoint.h"
#include "launch/base/errors.h"
#include "tests/support/declared_models.h"

namespace kt {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

class RunFolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    run_ = fs::path(::testing::TempDir()) /
           fmt::format("run_folder_{}_{}", ::getpid(),
                       ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(run_);
  }
  void TearDown() override { fs::remove_all(run_); }

  static Config config_with(const std::vector<std::string>& overrides) {
    ConfigReading reading = read_config("", "toy.yaml", overrides, declared_models());
    EXPECT_TRUE(reading.faults.empty());
    return reading.config;
  }

  static void claim(RunFolder& folder, const std::vector<std::string>& overrides) {
    const Config config = config_with(overrides);
    folder.claim(config, identity(config, "abc"));
  }

  static std::string message_of(const std::function<void()>& action) {
    try {
      action();
    } catch (const UserError& error) {
      return error.what();
    }
    ADD_FAILURE() << "no UserError";
    return {};
  }

  void save_checkpoint(int64_t step, const json& state = {}) {
    const fs::path temporary = begin_checkpoint(run_, step);
    commit_checkpoint(run_, step, temporary, state, {write_checkpoint_part(temporary, 0, {})}, 2,
                      {});
  }

  fs::path run_;
};

TEST_F(RunFolderTest, StoresTheEffectiveConfiguration) {
  RunFolder folder(run_ / "deep" / "run");
  claim(folder, {"train.seed=7"});
  const Config stored = load_config(run_ / "deep" / "run" / "config.yaml", {}, declared_models());
  EXPECT_EQ(stored.train.seed, 7);
  EXPECT_EQ(read_identity(folder.path())["train.seed"], 7);
}

TEST_F(RunFolderTest, ASecondStartMayChangeWhatDecidesNothing) {
  {
    RunFolder folder(run_);
    claim(folder, {"train.epochs=2"});
  }
  RunFolder folder(run_);
  claim(folder, {"train.epochs=3", "parallel.threads=2", "train.early_stop.patience=5"});
  EXPECT_EQ(load_config(run_ / "config.yaml", {}, declared_models()).train.epochs, 3);
}

TEST_F(RunFolderTest, AnotherIdentityIsRefusedWithTheDifference) {
  RunFolder folder(run_);
  claim(folder, {});
  folder.append_metrics({{"step", 1}});
  const std::string before = read_text_file(run_ / "config.yaml");
  EXPECT_THAT(message_of([&] {
                claim(folder, {"train.seed=2", "train.optimizer.lr=0.1"});
              }),
              AllOf(HasSubstr(run_.string()), HasSubstr("train.seed: stored 1, now 2"),
                    HasSubstr("train.optimizer.lr: stored 0.001, now 0.1"),
                    HasSubstr("choose another run.dir")));
  EXPECT_EQ(read_text_file(run_ / "config.yaml"), before);
}

TEST_F(RunFolderTest, AFolderInWhichNothingWasTrainedIsAnybodys) {
  RunFolder folder(run_);
  claim(folder, {});
  claim(folder, {"train.seed=2"});
  EXPECT_EQ(read_identity(run_)["train.seed"], 2);
  save_checkpoint(10);
  EXPECT_THAT(message_of([&] { claim(folder, {}); }), HasSubstr("train.seed: stored 2, now 1"));
}

TEST_F(RunFolderTest, ARunFromBeforeAKeyHasItsDefault) {
  RunFolder folder(run_);
  claim(folder, {"model.name=tower"});
  folder.append_metrics({{"step", 1}});
  const fs::path file = run_ / "identity.json";
  json older = json::parse(read_text_file(file));
  ASSERT_EQ(older.erase("model.hidden") + older.erase("train.plateau.factor"), 2u);
  std::ofstream(file) << older.dump();
  claim(folder, {"model.name=tower"});
  EXPECT_THAT(message_of([&] {
                claim(folder, {"model.name=tower", "model.hidden=[8]"});
              }),
              HasSubstr("model.hidden: stored none, so its default [64,32], "
                        "now [8]"));
  // The same from what a checkpoint tells, where the file is damaged.
  std::ofstream(file) << "{";
  save_checkpoint(10, {{"identity", older}});
  claim(folder, {"model.name=tower"});
  EXPECT_EQ(json::parse(read_text_file(file)).at("model.hidden"), json({64, 32}));
}

TEST_F(RunFolderTest, NeverRefusesCheckpointsInsteadOfDeletingThem) {
  RunFolder folder(run_);
  claim(folder, {"checkpoint.resume=never"});
  claim(folder, {"checkpoint.resume=never"});
  save_checkpoint(10);
  EXPECT_THAT(message_of([&] { claim(folder, {"checkpoint.resume=never"}); }),
              AllOf(HasSubstr("holds checkpoints"), HasSubstr("checkpoint.resume=auto")));
  EXPECT_EQ(list_checkpoints(run_).size(), 1u);
  claim(folder, {});
}

TEST_F(RunFolderTest, AFolderOfAnotherKindIsRefused) {
  fs::create_directories(run_);
  std::ofstream(run_ / "config.yaml") << "mine: 1\n";
  RunFolder folder(run_);
  EXPECT_THAT(message_of([&] { claim(folder, {}); }),
              HasSubstr("holds config.yaml but no identity.json"));
  EXPECT_EQ(read_text_file(run_ / "config.yaml"), "mine: 1\n");
  EXPECT_THAT(message_of([&] { read_identity(run_); }), HasSubstr("expected the folder of a run"));
}

TEST_F(RunFolderTest, APathThatIsAFileIsRefused) {
  std::ofstream(run_) << "text";
  EXPECT_THAT(message_of([&] { RunFolder folder(run_); }), HasSubstr("choose another run.dir"));
}

TEST_F(RunFolderTest, TwoRunsAtATimeAreRefused) {
  {
    RunFolder first(run_);
    EXPECT_THAT(message_of([&] { RunFolder second(run_); }),
                AllOf(HasSubstr(run_.string()), HasSubstr(fmt::format("process {}", ::getpid())),
                      HasSubstr("choose another run.dir")));
    RunFolder moved(std::move(first));
    EXPECT_THROW(RunFolder second(run_), UserError);
  }
  RunFolder again(run_);
}

TEST_F(RunFolderTest, OthersSeeWhetherItIsFree) {
  EXPECT_TRUE(is_run_folder_free(run_)) << "there is none";
  {
    RunFolder folder(run_);
    EXPECT_FALSE(is_run_folder_free(run_));
  }
  EXPECT_TRUE(is_run_folder_free(run_));
  RunFolder again(run_);  // the look has left nothing behind
}

TEST_F(RunFolderTest, AKilledRunLetsGo) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      RunFolder folder(run_);
      [[maybe_unused]] const ssize_t told = ::write(ready[1], "x", 1);
      for (;;) ::pause();
    } catch (const UserError&) {
      ::_exit(1);
    }
  }
  ::close(ready[1]);  // so that a child that fails ends the read below
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_THAT(message_of([&] { RunFolder folder(run_); }),
              HasSubstr(fmt::format("process {}", child)));
  ::kill(child, SIGKILL);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  RunFolder folder(run_);
  ::close(ready[0]);
}

TEST_F(RunFolderTest, MetricsAreCutAtAStep) {
  RunFolder folder(run_);
  EXPECT_EQ(folder.cut_metrics_at(5), 0);
  for (const int64_t step : {1, 2, 2, 3}) folder.append_metrics({{"step", step}, {"loss", 0.1}});
  const fs::path file = run_ / "metrics.jsonl";
  EXPECT_EQ(read_text_file(file),
            "{\"loss\":0.1,\"step\":1}\n{\"loss\":0.1,\"step\":2}\n{\"loss\":0.1,\"step\":2}\n"
            "{\"loss\":0.1,\"step\":3}\n");
  std::ofstream(file, std::ios::app) << "{\"step\":2";  // killed within a line
  EXPECT_EQ(folder.cut_metrics_at(2), 2);
  folder.append_metrics({{"step", 4}});
  EXPECT_EQ(read_text_file(file),
            "{\"loss\":0.1,\"step\":1}\n{\"loss\":0.1,\"step\":2}\n{\"loss\":0.1,\"step\":2}\n"
            "{\"step\":4}\n");
  EXPECT_EQ(folder.cut_metrics_at(-1), 4);
  EXPECT_EQ(read_text_file(file), "");
}

TEST_F(RunFolderTest, ResultIsReplacedAsAWhole) {
  RunFolder folder(run_);
  EXPECT_FALSE(read_result(folder.path()).has_value());
  folder.write_result({{"wall_seconds", 1}});
  folder.write_result({{"wall_seconds", 2}});
  EXPECT_EQ(*read_result(folder.path()), (json{{"wall_seconds", 2}}));
  std::ofstream(run_ / "result.json") << "{";
  EXPECT_THAT(message_of([&] { read_result(folder.path()); }), HasSubstr("result.json: is damaged"));
}

TEST_F(RunFolderTest, AResultThatWasChangedIsRefused) {
  RunFolder folder(run_);
  const json result{{"mse", 0.125}, {"k", {10, 50}}, {"name", "ncf"}};
  const json written = folder.write_result(result);
  const std::string text = read_text_file(run_ / "result.json");
  EXPECT_EQ(json::parse(text), written);
  EXPECT_TRUE(written.contains("xxh128"));
  const auto refused = [&](const std::string& content) {
    std::ofstream(run_ / "result.json") << content;
    try {
      read_result(folder.path());
    } catch (const UserError&) {
      return true;
    }
    return false;
  };
  for (size_t at = 0; at < text.size(); ++at) {
    std::string changed = text;
    changed[at] = changed[at] == '7' ? '8' : '7';
    EXPECT_TRUE(refused(changed)) << changed;
    // Without its last line end it is whole.
    EXPECT_EQ(refused(text.substr(0, at)), at + 1 < text.size()) << at;
  }
  for (const char* other : {"[]", "1", "null", "{}", "{\"mse\": 1}", "{\"xxh128\": 5}"})
    EXPECT_TRUE(refused(other)) << other;
  EXPECT_FALSE(refused(text));
  EXPECT_EQ(read_result(folder.path()), result);
}

TEST_F(RunFolderTest, LinesOfAKindAreDropped) {
  RunFolder folder(run_);
  for (const int64_t step : {1, 2})
    for (const char* kind : {"interval", "evaluation"})
      folder.append_metrics({{"step", step}, {"kind", kind}});
  folder.drop_metrics("evaluation", 2);
  EXPECT_EQ(read_text_file(run_ / "metrics.jsonl"),
            "{\"kind\":\"interval\",\"step\":1}\n{\"kind\":\"evaluation\",\"step\":1}\n"
            "{\"kind\":\"interval\",\"step\":2}\n");
}

TEST_F(RunFolderTest, ADamagedIdentityIsThatOfTheCheckpoints) {
  RunFolder folder(run_);
  claim(folder, {});
  folder.append_metrics({{"step", 1}});
  const fs::path file = run_ / "identity.json";
  const std::string whole = read_text_file(file);
  std::ofstream(file) << whole.substr(0, whole.size() / 2);
  EXPECT_THAT(message_of([&] { claim(folder, {}); }), HasSubstr("identity.json: is damaged"));
  save_checkpoint(10, {{"identity", json::parse(whole)}});
  EXPECT_THAT(message_of([&] { claim(folder, {"train.seed=2"}); }),
              HasSubstr("identity.json: is damaged"));
  claim(folder, {});
  EXPECT_EQ(read_text_file(file), whole);
}

}  // namespace
}  // namespace kt
