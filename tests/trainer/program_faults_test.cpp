// Faults a user can mend: exit code 2, one message that says where and what to do, nothing half-written.
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
using ::testing::IsEmpty;
using ::testing::Matcher;

namespace fs = std::filesystem;

const std::string kHeader =
    "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n";
const std::string kBigRows =
    "1,10,500,1000,2020-07-05 00:08:23.438,20200705,1593878903.438,0.5\n"
    "2,10,250,1000,2020-07-06 00:08:23.4,20200706,1593965303.4,0.25\n";
const std::string kSmallRows =
    "1,12,300,400,2020-07-05 05:27:48.378,20200705.0,1593898068.378,0.75\n";

/// Exit code 2, and of all ranks together one message.
void expect_fault(const Ended& ended, const Matcher<std::string>& message) {
  EXPECT_EQ(ended.code, 2) << ended.out << ended.err;
  EXPECT_THAT(ended.errors(), ElementsAre(message)) << ended.err;
  EXPECT_THAT(ended.err, Not(HasSubstr("report it")));
}

// --- import -------------------------------------------------------------------------------------------------

class ImportFault : public ::testing::Test {
 protected:
  ImportFault() {
    write("big_matrix.csv", kHeader + kBigRows);
    write("small_matrix.csv", kHeader + kSmallRows);
  }
  void write(const std::string& name, const std::string& text) const {
    write_file(shop_.path() / "work" / "source" / name, text);
  }
  Ended import(const Launch& launch = {}) const {
    return run_program(shop_.path() / "work",
                       {"import", "source", "--out", "made", "--shards", "2"}, launch);
  }
  void expect_import_fault(const Matcher<std::string>& message) const {
    expect_fault(import(), message);
    EXPECT_THAT(names_in(shop_.path() / "work"), ElementsAre("source"));
  }

  Workshop shop_{"program-import-faults"};
};

TEST_F(ImportFault, NoneInThePlainTables) {
  const Ended ended = import();
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_THAT(names_in(shop_.path() / "work"), ElementsAre("made", "source"));
}

TEST_F(ImportFault, MissingColumn) {
  write("big_matrix.csv", "user_id,video_id,play_duration,video_duration,time,date,timestamp\n");
  expect_import_fault(
      AllOf(HasSubstr("source/big_matrix.csv:1: there is no column \"watch_ratio\""),
            HasSubstr("name it in the header")));
}

TEST_F(ImportFault, CellThatIsNoNumber) {
  write("big_matrix.csv", kHeader + kBigRows + "1,11,2o0,1000,,,,0.2\n");
  expect_import_fault(
      AllOf(HasSubstr("source/big_matrix.csv:4: play_duration is \"2o0\", expected"),
            HasSubstr("--skip-malformed")));
}

TEST_F(ImportFault, NegativeId) {
  write("big_matrix.csv", kHeader + "-1,11,200,1000,,,,0.2\n" + kBigRows);
  expect_import_fault(AllOf(HasSubstr("source/big_matrix.csv:2: user_id is -1, expected"),
                            HasSubstr("--skip-malformed")));
}

TEST_F(ImportFault, IdOutsideTheSideTables) {
  write("item_categories.csv", "video_id,feat\n10,[26]\n12,[1]\n");
  EXPECT_EQ(import().code, 0);
  fs::remove_all(shop_.path() / "work" / "made");
  write("item_categories.csv", "video_id,feat\n10,[26]\n");
  expect_import_fault(AllOf(HasSubstr("source/small_matrix.csv:2: video_id is 12"),
                            HasSubstr("item_categories.csv does not list")));
}

TEST_F(ImportFault, InfiniteRatio) {
  write("small_matrix.csv", kHeader + kSmallRows + "1,11,200,1000,,,,inf\n");
  expect_import_fault(
      HasSubstr("source/small_matrix.csv:3: watch_ratio is \"inf\", expected a finite"));
}

TEST_F(ImportFault, EmptyFile) {
  write("small_matrix.csv", "");
  expect_import_fault(AllOf(HasSubstr("source/small_matrix.csv"), HasSubstr("is empty, expected"),
                            HasSubstr("give a complete file")));
}

TEST_F(ImportFault, TruncatedFile) {
  const std::string text = kHeader + kBigRows;
  write("big_matrix.csv", text.substr(0, text.size() - 12));
  expect_import_fault(AllOf(HasSubstr("source/big_matrix.csv:3: the file ends inside this line"),
                            HasSubstr("give the complete file")));
}

TEST_F(ImportFault, BareCarriageReturnsInCaptionsAreNone) {
  write("kuairec_caption_category.csv",
        "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,"
        "first_level_category_name,second_level_category_id,second_level_category_name,"
        "third_level_category_id,third_level_category_name\n"
        "10,UNKNOWN,one\rtwo #a,[a],1,Money,2,Saving,3,UNKNOWN\n"
        "12,UNKNOWN,\"three\rfour, five\",[],1,Money,2,Saving,3,UNKNOWN\n");
  const Ended ended = import();
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_EQ(json_file(shop_.path() / "work" / "made" / "manifest.json")
                .at("tables")
                .at("kuairec_caption_category.csv")
                .at("rows"),
            2);
}

TEST_F(ImportFault, SeveralRanks) {
  expect_fault(import({.ranks = 2}), AllOf(HasSubstr("`import` runs as one process, but 2 tasks"),
                                           HasSubstr("without mpirun")));
  EXPECT_THAT(names_in(shop_.path() / "work"), ElementsAre("source"));
}

// --- training and what follows ------------------------------------------------------------------------------

class TrainFault : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-faults");
    make_replica(folder(), 8);
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }
  static fs::path work() { return folder() / "work"; }

  /// A copy of the data set, to be damaged.
  static fs::path copy(const std::string& name) {
    fs::copy(folder() / "dataset", folder() / name, fs::copy_options::recursive);
    return folder() / name;
  }
  static Ended train(const fs::path& dataset, const std::string& run, const Launch& launch,
                     const Arguments& more = {}) {
    Arguments arguments{"train",
                        "--config",
                        KT_TINY_CONFIG,
                        "data.path=" + dataset.string(),
                        "run.dir=" + (folder() / run).string(),
                        "train.max_steps=12",
                        "checkpoint.every_steps=5"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program(work(), arguments, launch);
  }
  /// The message is one of all ranks together.
  static void expect_train_fault(const fs::path& dataset, const Matcher<std::string>& message,
                                 const Arguments& more = {},
                                 const std::vector<int>& all_ranks = {0, 2}) {
    for (const int ranks : all_ranks) {
      const std::string run = fmt::format("{}-run-{}", dataset.filename().string(), ranks);
      expect_fault(train(dataset, run, {.ranks = ranks}, more), message);
      EXPECT_FALSE(fs::exists(folder() / run / "result.json"));
      EXPECT_FALSE(fs::exists(folder() / run / "checkpoints"));
    }
  }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> TrainFault::shop_;

TEST_F(TrainFault, NoneInThePlainData) {
  const Ended ended = train(folder() / "dataset", "plain", {.ranks = 2});
  EXPECT_EQ(ended.code, 0) << ended.err;
}

// The last shard is one that only the last rank reads: rank 1 of two, rank 2 of three.
TEST_F(TrainFault, AFlippedByteInAShardOfOneRank) {
  const fs::path dataset = copy("flipped");
  flip_byte(dataset / "shards" / "shard-0007.h5");
  expect_train_fault(dataset,
                     AllOf(HasSubstr((dataset / "shards/shard-0007.h5").string()),
                           HasSubstr("checksum"), HasSubstr("import the data set again")),
                     {}, {0, 2, 3});
}

TEST_F(TrainFault, AShardOfOneRankIsMissing) {
  const fs::path dataset = copy("missing");
  fs::remove(dataset / "shards" / "shard-0007.h5");
  expect_train_fault(dataset,
                     AllOf(HasSubstr((dataset / "shards/shard-0007.h5").string()),
                           HasSubstr("No such file"), HasSubstr("import the data set again")),
                     {}, {0, 2, 3});
}

TEST_F(TrainFault, AnotherSchemaVersion) {
  const fs::path dataset = copy("schema");
  nlohmann::json manifest = json_file(dataset / "manifest.json");
  manifest["schema_version"] = 99;
  write_file(dataset / "manifest.json", manifest.dump());
  expect_train_fault(dataset,
                     AllOf(HasSubstr("schema/manifest.json: schema_version is 99, expected"),
                           HasSubstr("import the data set again")));
}

TEST_F(TrainFault, AnEditedManifest) {
  const fs::path dataset = copy("edited");
  nlohmann::json manifest = json_file(dataset / "manifest.json");
  manifest["users"] = 320;
  write_file(dataset / "manifest.json", manifest.dump());
  expect_train_fault(dataset, AllOf(HasSubstr("edited/manifest.json: is damaged: its checksum is"),
                                    HasSubstr("import the data set again")));
}

TEST_F(TrainFault, NoDataSetThere) {
  expect_train_fault(folder() / "nowhere",
                     AllOf(HasSubstr("nowhere: no such folder, expected a data set"),
                           HasSubstr("kuaitrain import")));
}

TEST_F(TrainFault, UnknownKey) {
  expect_train_fault(folder() / "dataset",
                     AllOf(HasSubstr("command line: train.epohcs"), HasSubstr("train.epochs")),
                     {"train.epohcs=3"});
}

TEST_F(TrainFault, WrongTypeInAFile) {
  const fs::path file = folder() / "wrong.yaml";
  write_file(file, "train:\n  epochs: 2\n  global_batch: many\n");
  for (const int ranks : {0, 2}) {
    const Ended ended =
        run_program(work(), {"--config", file, "data.path=" + (folder() / "dataset").string()},
                    {.ranks = ranks});
    expect_fault(ended, AllOf(HasSubstr(file.string() + ":3: train.global_batch: got"),
                              HasSubstr("many"), HasSubstr("expected")));
  }
  EXPECT_FALSE(fs::exists(work() / "runs"));
}

TEST_F(TrainFault, MoreRanksThanShards) {
  ASSERT_EQ(run_program(work(), {"import", folder() / "source", "--out", folder() / "two-shards",
                                 "--shards", "2"})
                .code,
            0);
  EXPECT_EQ(train(folder() / "two-shards", "two-ranks", {.ranks = 2}).code, 0);
  expect_fault(train(folder() / "two-shards", "three-ranks", {.ranks = 3}),
               AllOf(HasSubstr("3 ranks, but the data set has 2 shards"),
                     HasSubstr("import the data again with more --shards")));
  EXPECT_FALSE(fs::exists(folder() / "three-ranks" / "checkpoints"));
}

TEST_F(TrainFault, ContentWithoutItsTable) {
  write_ratings(folder());
  import_ratings(folder());
  expect_train_fault(folder() / "ratings",
                     AllOf(HasSubstr("model.content is daily"), HasSubstr("model.content=none")));
}

TEST_F(TrainFault, ADiskThatFillsUpDuringImportAndSynth) {
  const fs::path folder_of_import = folder() / "full" / "work";
  expect_fault(
      run_program(folder_of_import, {"import", folder() / "source", "--out", "made"},
                  {.file_limit_bytes = 64 << 10}),
      AllOf(HasSubstr("cannot write it: File too large"), HasSubstr("free space on that disk")));
  expect_fault(
      run_program(folder_of_import, {"synth", "--scale", "0.002", "--out", "made"},
                  {.file_limit_bytes = 64 << 10}),
      AllOf(HasSubstr("cannot write it: File too large"), HasSubstr("free space on that disk")));
  EXPECT_THAT(names_in(folder_of_import), IsEmpty());
}

TEST_F(TrainFault, ADiskThatFillsUpDuringACheckpoint) {
  const Ended whole = train(folder() / "dataset", "roomy", {});
  ASSERT_EQ(whole.code, 0) << whole.err;
  for (const int ranks : {0, 1, 2}) {
    const std::string run = fmt::format("full-{}", ranks);
    expect_fault(train(folder() / "dataset", run, {.ranks = ranks, .file_limit_bytes = 64 << 10}),
                 AllOf(HasSubstr("cannot write it: File too large"),
                       HasSubstr("free space on that disk, then run again")));
    EXPECT_THAT(names_in(folder() / run / "checkpoints"), IsEmpty());
    EXPECT_FALSE(fs::exists(folder() / run / "result.json"));
    // With room again, the same command goes through, to the same weights.
    const Ended again = train(folder() / "dataset", run, {.ranks = ranks});
    ASSERT_EQ(again.code, 0) << again.err;
    EXPECT_EQ(json_file(folder() / run / "result.json").at("weights_hash"),
              json_file(folder() / "roomy" / "result.json").at("weights_hash"));
  }
}

TEST_F(TrainFault, ADamagedOnlyCheckpoint) {
  ASSERT_EQ(train(folder() / "dataset", "spoilt", {}).code, 0);
  const fs::path checkpoints = folder() / "spoilt" / "checkpoints";
  for (const std::string& name : names_in(checkpoints))
    flip_byte(checkpoints / name / "part-00000.h5");
  for (const int ranks : {0, 2}) {
    const Ended ended = run_program(work(), {"evaluate", folder() / "spoilt"}, {.ranks = ranks});
    expect_fault(ended,
                 AllOf(HasSubstr("spoilt: every checkpoint is damaged"), HasSubstr("train")));
  }
}

TEST_F(TrainFault, AnEvaluationOfNothing) {
  for (const int ranks : {0, 2})
    expect_fault(run_program(work(), {"evaluate", folder() / "dataset"}, {.ranks = ranks}),
                 AllOf(HasSubstr("no config.yaml"), HasSubstr("expected the folder of a run")));
}

}  // namespace
}  // namespace kt
