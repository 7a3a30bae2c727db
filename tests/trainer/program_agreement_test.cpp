// Ranks that were not started alike: exit code 2 and one message, before anything is computed; and what may differ.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "tests/support/run_program.h"

namespace kt {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Matcher;

namespace fs = std::filesystem;

class Agreement : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-agreement");
    write_ratings(folder());
    import_ratings(folder());
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }
  static fs::path work() { return folder() / "work"; }

  static std::string training(const std::string& run) {
    return fmt::format(
        "data.path={0}/ratings run.dir={0}/{1} model.content=none train.global_batch=256 "
        "train.epochs=1 ",
        folder().string(), run);
  }
  /// Two ranks with words of their own after the words of both.
  static Ended both(const std::string& words, const std::string& first, const std::string& second) {
    const std::string line =
        fmt::format("if [ $OMPI_COMM_WORLD_RANK = 0 ]; then exec {0} {1} {2}; fi; exec {0} {1} {3}",
                    KT_PROGRAM, words, first, second);
    return run_program(work(), {"-c", line}, {.ranks = 2, .program = "/bin/bash"});
  }
  static void expect_refused(const Ended& ended, const Matcher<std::string>& message) {
    EXPECT_EQ(ended.code, 2) << ended.out << ended.err;
    EXPECT_THAT(ended.errors(), ElementsAre(message)) << ended.err;
  }
  static std::string hash(const std::string& run) {
    return json_file(folder() / run / "result.json").at("weights_hash");
  }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> Agreement::shop_;

TEST_F(Agreement, KeysThatDiffer) {
  const std::string all = training("refused");
  const auto refused = [&](const std::string& first, const std::string& second,
                           const std::string& message) {
    expect_refused(both(all, first, second),
                   HasSubstr("the ranks of this run do not agree: " + message));
  };
  refused("train.seed=3", "train.seed=4", "train.seed: 3 on rank 0; 4 on rank 1");
  refused("evaluate.k=[5]", "parallel.timeout_s=1 evaluate.k=[5]",
          "parallel.timeout_s: 60 on rank 0; 1 on rank 1");
  refused("", "train.epochs=none", "fault: none on rank 0; command line: train.epochs=none");
  refused("", "run.dir=elsewhere", "run.dir: " + (folder() / "refused").string() + " on rank 0");
  EXPECT_FALSE(fs::exists(folder() / "refused"));
}

TEST_F(Agreement, CommandsThatDiffer) {
  const std::string all = training("commands");
  expect_refused(both("", "train " + all, "evaluate runs/ncf"),
                 HasSubstr("command: train on rank 0; evaluate on rank 1"));
  expect_refused(both("", "train " + all, "--help"),
                 HasSubstr("command: train on rank 0; --help on rank 1"));
  expect_refused(both("", "validate " KT_TINY_CONFIG, "train " + all + "--bogus"),
                 HasSubstr("fault: none on rank 0; The following argument was not expected"));
  EXPECT_FALSE(fs::exists(folder() / "commands"));
}

TEST_F(Agreement, DataThatDiffers) {
  ASSERT_EQ(run_program(work(), {"import", folder() / "held_out.tsv", "--map",
                                 "user=who,item=what,label=stars,time=when", "--delimiter", "tab",
                                 "--test", folder() / "held_out.tsv", "--shards", "16", "--out",
                                 folder() / "other" / "ratings"})
                .code,
            0);
  const std::string words =
      fmt::format("run.dir={}/data model.content=none data.path=ratings ", folder().string());
  const Ended ended = run_program(
      work(),
      {"-c", fmt::format("[ $OMPI_COMM_WORLD_RANK = 0 ] && cd .. || cd ../other; exec {} {}",
                         KT_PROGRAM, words)},
      {.ranks = 2, .program = "/bin/bash"});
  expect_refused(ended, HasSubstr("do not agree: hash of the data set: "));
}

TEST_F(Agreement, ThreadsSimdAndLogMayDiffer) {
  ASSERT_EQ(both(training("plain"), "", "").code, 0);
  ASSERT_EQ(both(training("more-on-1"), "log.every_steps=1", "parallel.threads=3").code, 0);
  ASSERT_EQ(both(training("more-on-0"), "parallel.threads=2 parallel.simd=avx2", "").code, 0);
  EXPECT_EQ(hash("more-on-1"), hash("plain"));
  EXPECT_EQ(hash("more-on-0"), hash("plain"));

  // The evaluation of a run: pairs that differ, and from a folder where its relative paths lead nowhere.
  write_file(work() / "0.csv", "user_id,video_id,watch_ratio\nuser 1,item-1,1\nuser 2,item-2,2\n");
  write_file(work() / "1.csv", "user_id,video_id,watch_ratio\nuser 1,item-1,1\nuser 2,item-2,3\n");
  const std::string evaluate = fmt::format("evaluate {}/plain ", folder().string());
  expect_refused(both(evaluate, "--pairs 0.csv", "--pairs 1.csv"),
                 HasSubstr("do not agree: --pairs: pairs of checksum "));
  expect_refused(both(evaluate, "--pairs 0.csv", ""), HasSubstr("; none on rank 1"));
  EXPECT_EQ(both(evaluate, "--pairs 0.csv", "--pairs ../work/0.csv").code, 0);
}

// Of the address sanitizer the shadow alone is larger.
#ifdef __SANITIZE_ADDRESS__
constexpr const char* kLimit = "";
#else
constexpr const char* kLimit = "ulimit -v 4000000; ";
#endif

TEST_F(Agreement, ARunWhoseDataAreNotFoundFromHereSaysWhichKeyNamesThem) {
  // A list longer than any candidates takes no memory, and is left out.
  const std::string line = fmt::format(
      "{}exec {} data.path=ratings run.dir=relative model.content=none "
      "train.max_steps=2 evaluate.k=[3,1000000000]",
      kLimit, KT_PROGRAM);
  const Ended ended = run_program(folder(), {"-c", line}, {.program = "/bin/bash"});
  ASSERT_EQ(ended.code, 0) << ended.err;
  const auto metrics =
      json_file(folder() / "relative" / "result.json").at("evaluation").at("metrics");
  EXPECT_TRUE(metrics.contains("ndcg@3/graded5"));
  EXPECT_FALSE(metrics.contains("ndcg@1000000000/graded5"));
  for (const Arguments& command : {Arguments{"evaluate", "../relative"},
                                   Arguments{"recommend", "../relative", "--user", "whale"}}) {
    expect_refused(run_program(work(), command),
                   AllOf(HasSubstr("../relative: the data set of the run is ratings, which is not "
                                   "there from " +
                                   work().string()),
                         HasSubstr("data.path=DATASET")));
    Arguments mended = command;
    mended.push_back("data.path=../ratings");
    EXPECT_EQ(run_program(work(), mended).code, 0);
  }
}

TEST_F(Agreement, AConfigurationWithoutItsOptionIsPointedToIt) {
  for (const Arguments& command : {Arguments{"some.yaml"}, Arguments{"train", "some.yaml"}})
    expect_refused(run_program(work(), command),
                   HasSubstr("a configuration is named by --config some.yaml"));
  expect_refused(run_program(work(), {"--config", ""}), HasSubstr("got no name"));
}

TEST_F(Agreement, NumbersOfTheCommandLineAreWhatWasWritten) {
  for (const Arguments& words : {Arguments{"synth", "--out", "made", "--seed", "-1"},
                                 {"synth", "--out", "made", "--seed", "010"},
                                 {"synth", "--out", "made", "--scale", "nan"},
                                 {"plan", "--ranks", "0x10"},
                                 {"plan", "--ranks", "2", "--memory", "nan"},
                                 {"plan", "--ranks", "2", "--nodes", "1e3"},
                                 {"import", "no", "--out", "made", "--shards", "010"},
                                 {"recommend", "no", "--user", "u", "--top", "010"}})
    expect_refused(
        run_program(work(), words),
        HasSubstr(fmt::format("{}: got {}, expected a", words[words.size() - 2], words.back())));
  EXPECT_FALSE(fs::exists(work() / "made"));
}

}  // namespace
}  // namespace kt
