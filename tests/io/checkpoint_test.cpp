#include "io/run/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "io/files/files.h"
#include "launch/base/errors.h"

namespace kt {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kRows = 11, kCols = 3, kWide = 5;

/// Value of row r, column c of an array; depends on the step, and is never 0.
float value_of(int64_t array, int64_t r, int64_t c, int64_t step) {
  return static_cast<float>(1 + array * 1000 + r * 10 + c) + 0.25f * static_cast<float>(step);
}

std::vector<float> rows_of(int64_t array, int64_t begin, int64_t end, int64_t cols, int64_t step) {
  std::vector<float> out;
  for (int64_t r = begin; r < end; ++r)
    for (int64_t c = 0; c < cols; ++c) out.push_back(value_of(array, r, c, step));
  return out;
}

class CheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    run_ = fs::path(::testing::TempDir()) /
           fmt::format("checkpoint_{}_{}", ::getpid(),
                       ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(run_);
    fs::create_directories(run_);
  }
  void TearDown() override { fs::remove_all(run_); }

  /// Two arrays, and one that has no rows, cut over `ranks` ranks; the last row of `table` is in a range of
  /// its own.
  std::vector<PartFile> write_parts(const fs::path& temporary, int64_t step, int ranks) {
    std::vector<PartFile> parts;
    for (int rank = 0; rank < ranks; ++rank) {
      const auto cut = [&](int64_t rows, int r) { return rows * r / ranks; };
      const int64_t begin = cut(kRows - 1, rank), end = cut(kRows - 1, rank + 1);
      const auto table = rows_of(0, begin, end, kCols, step);
      const auto last = rows_of(0, kRows - 1, kRows, kCols, step);
      const auto wide = rows_of(1, cut(4, rank), cut(4, rank + 1), kWide, step);
      std::vector<ArrayPart> arrays = {{"table", kRows, kCols, begin, end, table},
                                       {"wide", 4, kWide, cut(4, rank), cut(4, rank + 1), wide},
                                       {"empty", 0, 2, 0, 0, {}}};
      if (rank == 0) arrays.push_back({"table", kRows, kCols, kRows - 1, kRows, last});
      PartFile part = write_checkpoint_part(temporary, rank, arrays);
      parts.push_back(json(part).get<PartFile>());  // as it would travel to rank 0
      EXPECT_EQ(parts.back(), part);
    }
    return parts;
  }

  fs::path save(int64_t step, int ranks = 1, int64_t keep = 2,
                std::vector<int64_t> kept_steps = {}) {
    const fs::path temporary = begin_checkpoint(run_, step);
    const auto parts = write_parts(temporary, step, ranks);
    return commit_checkpoint(run_, step, temporary, {{"epoch", step / 10}}, parts, keep,
                             kept_steps);
  }

  std::vector<std::string> entries() {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(run_ / "checkpoints"))
      names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

  static void flip_byte(const fs::path& file, int64_t at) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(at);
    const char byte = static_cast<char>(stream.get());
    stream.seekp(at);
    stream.put(static_cast<char>(byte ^ 1));
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

  fs::path run_;
};

TEST_F(CheckpointTest, AnyNumberOfRanksReadsWhatAnyNumberWrote) {
  for (const int writers : {1, 2, 3, 7}) {
    Checkpoint checkpoint = Checkpoint::open(save(writers, writers));
    EXPECT_EQ(checkpoint.step(), writers);
    EXPECT_EQ(checkpoint.state(), (json{{"epoch", 0}}));
    EXPECT_EQ(checkpoint.parts().size(), static_cast<size_t>(writers));
    EXPECT_THAT(checkpoint.arrays(),
                ElementsAre(std::pair("empty", Checkpoint::Shape{0, 2}),
                            std::pair("table", Checkpoint::Shape{kRows, kCols}),
                            std::pair("wide", Checkpoint::Shape{4, kWide})));
    for (int64_t begin = 0; begin <= kRows; ++begin)
      for (int64_t end = begin; end <= kRows; ++end) {
        std::vector<float> out(static_cast<size_t>((end - begin) * kCols));
        checkpoint.read_rows("table", begin, end, out);
        EXPECT_EQ(out, rows_of(0, begin, end, kCols, writers)) << begin << " " << end;
      }
    std::vector<float> wide(4 * kWide);
    checkpoint.read_rows("wide", 0, 4, wide);
    EXPECT_EQ(wide, rows_of(1, 0, 4, kWide, writers));
    checkpoint.read_rows("empty", 0, 0, {});
  }
}

TEST_F(CheckpointTest, LatestPointsAtTheNewestAndOldOnesGo) {
  for (const int64_t step : {10, 20, 30}) save(step);
  EXPECT_THAT(list_checkpoints(run_), ElementsAre(30, 20));
  EXPECT_EQ(fs::read_symlink(run_ / "latest"), "checkpoints/step-000000000030");
  EXPECT_EQ(Checkpoint::open(run_ / "latest").step(), 30);
  EXPECT_THAT(entries(), ElementsAre("step-000000000020", "step-000000000030"));
}

TEST_F(CheckpointTest, TheBestIsNeverDeleted) {
  save(10);
  for (const int64_t step : {20, 30, 40}) save(step, 1, 2, {10});
  EXPECT_THAT(list_checkpoints(run_), ElementsAre(40, 30, 10));
  save(50, 1, 2, {40});
  EXPECT_THAT(list_checkpoints(run_), ElementsAre(50, 40));
}

TEST_F(CheckpointTest, OnlyOursAreDeleted) {
  save(10);
  fs::create_directories(run_ / "checkpoints/step-10");
  fs::create_directories(run_ / "checkpoints/notes");
  for (const int64_t step : {20, 30}) save(step);
  EXPECT_THAT(entries(), ElementsAre("notes", "step-000000000020", "step-000000000030", "step-10"));
}

TEST_F(CheckpointTest, ContinuingAnOlderOneKeepsWhatItWritesAndTheNewer) {
  for (const int64_t step : {10, 20, 30}) save(step, 1, 3);
  save(15, 1, 2);
  EXPECT_THAT(list_checkpoints(run_), ElementsAre(30, 20, 15, 10));
  EXPECT_EQ(Checkpoint::open(run_ / "latest").step(), 15);
}

TEST_F(CheckpointTest, ACheckpointOfTheSameStepIsReplaced) {
  save(10, 3);
  flip_byte(checkpoint_path(run_, 10) / "part-00001.h5", 2000);
  Checkpoint replaced = Checkpoint::open(save(10, 2));
  EXPECT_EQ(replaced.parts().size(), 2u);
  EXPECT_THAT(entries(), ElementsAre("step-000000000010"));
}

TEST_F(CheckpointTest, LeftOverTemporariesAreIgnoredThenRemoved) {
  save(10);
  const fs::path crashed = begin_checkpoint(run_, 20);  // and no commit
  write_parts(crashed, 20, 1);
  EXPECT_THAT(list_checkpoints(run_), ElementsAre(10));
  const auto bad = [](int64_t, const std::string& message) { FAIL() << message; };
  EXPECT_EQ(newest_good_checkpoint(run_, bad)->step(), 10);
  save(30);
  EXPECT_THAT(entries(), ElementsAre("step-000000000010", "step-000000000030"));
}

TEST_F(CheckpointTest, WhatAnEndBetweenTwoWritesLeftIsPutRight) {
  save(10);
  save(20);
  fs::remove(run_ / "latest");
  fs::create_directory_symlink("checkpoints/step-000000000010", run_ / "latest");
  fs::create_directories(run_ / "checkpoints" / ".tmp-step-000000000010-old");
  settle_checkpoints(run_, 20);
  EXPECT_EQ(fs::read_symlink(run_ / "latest"), "checkpoints/step-000000000020");
  EXPECT_THAT(entries(), ElementsAre("step-000000000010", "step-000000000020"));
}

TEST_F(CheckpointTest, CheckpointsAfterTheOneGoneBackToAreDropped) {
  for (const int64_t step : {10, 20, 30}) save(step, 1, 3);
  drop_checkpoints_after(run_, 10);
  EXPECT_THAT(list_checkpoints(run_), ElementsAre(10));
  EXPECT_EQ(fs::read_symlink(run_ / "latest"), "checkpoints/step-000000000010");
}

TEST_F(CheckpointTest, NoCheckpointIsNone) {
  const auto bad = [](int64_t, const std::string& message) { FAIL() << message; };
  EXPECT_THAT(list_checkpoints(run_), IsEmpty());
  EXPECT_FALSE(newest_good_checkpoint(run_, bad).has_value());
}

TEST_F(CheckpointTest, EveryDamagedByteIsFound) {
  const fs::path part = save(10) / "part-00000.h5";
  const int64_t bytes = static_cast<int64_t>(fs::file_size(part));
  for (int64_t at = 0; at < bytes; at += 97) {
    flip_byte(part, at);
    EXPECT_THAT(message_of([&] { Checkpoint::open(part.parent_path()); }),
                AllOf(HasSubstr("part-00000.h5"), HasSubstr("is damaged"), HasSubstr("expected"),
                      HasSubstr("use another checkpoint")));
    flip_byte(part, at);
  }
  EXPECT_EQ(Checkpoint::open(part.parent_path()).step(), 10);
}

TEST_F(CheckpointTest, DamageToTheManifestIsFound) {
  const fs::path folder = save(10);
  const fs::path manifest = folder / "manifest.json";
  const std::string text = read_text_file(manifest);
  const auto with = [&](const std::string& changed) {
    replace_file(manifest, changed);
    return message_of([&] { Checkpoint::open(folder); });
  };
  std::string changed = text;
  changed.replace(text.find("\"epoch\": 1"), 10, "\"epoch\": 2");
  EXPECT_THAT(with(changed), AllOf(HasSubstr("manifest.json"), HasSubstr("its checksum is")));
  EXPECT_THAT(with(text.substr(0, text.size() / 2)), HasSubstr("manifest.json: is damaged"));
  EXPECT_THAT(with("{}"), HasSubstr("manifest.json: is damaged"));
  changed = text;
  changed.replace(text.find("\"schema_version\": 1"), 19, "\"schema_version\": 9");
  EXPECT_THAT(with(changed), HasSubstr("schema version 9, expected 1"));
  fs::remove(manifest);
  EXPECT_THAT(message_of([&] { Checkpoint::open(folder); }), HasSubstr("no such file"));
}

TEST_F(CheckpointTest, MissingAndShortPartsAreFoundWithoutReadingThem) {
  const fs::path folder = save(10, 2);
  const fs::path part = folder / "part-00001.h5";
  fs::resize_file(part, fs::file_size(part) - 1);
  EXPECT_THAT(message_of([&] { Checkpoint::open(folder, Verify::kManifest); }),
              HasSubstr("part-00001.h5: missing or of another size"));
  EXPECT_THAT(message_of([&] { Checkpoint::open(folder); }), HasSubstr("part-00001.h5: has"));
  fs::remove(part);
  EXPECT_THAT(message_of([&] { Checkpoint::open(folder, Verify::kManifest); }),
              HasSubstr("missing"));
  EXPECT_THAT(message_of([&] { Checkpoint::open(folder); }), HasSubstr("missing or unreadable"));
}

TEST_F(CheckpointTest, ADamagedNewestIsReportedAndTheOneBeforeItUsed) {
  save(10);
  flip_byte(save(20) / "part-00000.h5", 2000);
  std::vector<int64_t> bad;
  const auto on_bad = [&](int64_t step, const std::string& message) {
    bad.push_back(step);
    EXPECT_THAT(message, HasSubstr("step-000000000020"));
  };
  EXPECT_EQ(newest_good_checkpoint(run_, on_bad)->step(), 10);
  EXPECT_THAT(bad, ElementsAre(20));

  // The run goes on from step 10 and saves step 20 again: that replaces the damaged one.
  save(20);
  EXPECT_EQ(newest_good_checkpoint(run_, on_bad)->step(), 20);
  EXPECT_THAT(bad, ElementsAre(20));
}

TEST_F(CheckpointTest, OneOfAnotherSchemaIsNeitherPassedOverNorDeleted) {
  save(10);
  const fs::path manifest = save(20) / "manifest.json";
  json other = json::parse(read_text_file(manifest));
  other["content"]["schema_version"] = 2;
  replace_file(manifest, other.dump());
  EXPECT_THAT(message_of([&] {
                newest_good_checkpoint(run_, [](int64_t, const std::string&) { ADD_FAILURE(); });
              }),
              AllOf(HasSubstr("step-000000000020/manifest.json: schema version 2, expected 1"),
                    HasSubstr("use the program that wrote it")));
  EXPECT_THAT(message_of([&] { save(20); }), HasSubstr("is of a program with another schema"));
  for (const int64_t step : {30, 40, 50}) save(step);
  EXPECT_THAT(entries(),
              ElementsAre("step-000000000020", "step-000000000040", "step-000000000050"));
}

TEST_F(CheckpointTest, WithoutALinkTheRunGoesOn) {
  fs::create_directories(run_ / "latest" / "copied");
  save(10);
  EXPECT_TRUE(fs::exists(run_ / "latest" / "copied"));
  EXPECT_FALSE(fs::exists(fs::symlink_status(run_ / ".tmp-latest")));
  EXPECT_EQ(newest_good_checkpoint(run_, [](int64_t, const std::string&) {})->step(), 10);
}

TEST_F(CheckpointTest, RowsThatAreNotThereAreRefused) {
  Checkpoint checkpoint = Checkpoint::open(save(10));
  std::vector<float> out(kCols);
  EXPECT_THAT(message_of([&] { checkpoint.read_rows("other", 0, 1, out); }),
              HasSubstr("holds no array other"));
  EXPECT_THAT(message_of([&] { checkpoint.read_rows("table", kRows, kRows + 1, out); }),
              HasSubstr("table has 11 rows, expected at least 12"));
}

TEST_F(CheckpointTest, PartsThatDoNotTileAnArrayAreABug) {
  const auto commit_with = [&](int64_t begin, int64_t end) {
    const fs::path temporary = begin_checkpoint(run_, 10);
    const auto values = rows_of(0, begin, end, kCols, 10);
    const auto first = rows_of(0, 0, 4, kCols, 10);
    const std::vector<ArrayPart> zero = {{"table", kRows, kCols, 0, 4, first}};
    const std::vector<ArrayPart> one = {{"table", kRows, kCols, begin, end, values}};
    const std::vector<PartFile> parts = {write_checkpoint_part(temporary, 0, zero),
                                         write_checkpoint_part(temporary, 1, one)};
    commit_checkpoint(run_, 10, temporary, {}, parts, 2, {});
  };
  EXPECT_THROW(commit_with(5, kRows), BugError);      // a gap
  EXPECT_THROW(commit_with(3, kRows), BugError);      // an overlap
  EXPECT_THROW(commit_with(4, kRows - 1), BugError);  // the end is missing
  EXPECT_THAT(list_checkpoints(run_), IsEmpty());
  commit_with(4, kRows);
  EXPECT_THAT(list_checkpoints(run_), ElementsAre(10));
}

/// A disk that fills up, as a limit on the size of files.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int) = nullptr;
};

TEST_F(CheckpointTest, AFullDiskLeavesTheEarlierOnesAndNoTemporary) {
  save(10);
  save(20);
  fs::path temporary = begin_checkpoint(run_, 30);
  const std::string part_message = message_of([&] {
    const FileSizeLimit limit(1000);
    write_parts(temporary, 30, 1);
  });
  EXPECT_THAT(part_message, AllOf(HasSubstr("part-00000.h5"), HasSubstr("free space")));
  abandon_checkpoint(temporary);

  temporary = begin_checkpoint(run_, 30);
  const auto parts = write_parts(temporary, 30, 1);
  const std::string manifest_message = message_of([&] {
    const FileSizeLimit limit(100);
    commit_checkpoint(run_, 30, temporary, {{"epoch", 3}}, parts, 2, {});
  });
  EXPECT_THAT(manifest_message, AllOf(HasSubstr("manifest.json"), HasSubstr("free space")));

  EXPECT_THAT(entries(), ElementsAre("step-000000000010", "step-000000000020"));
  EXPECT_EQ(Checkpoint::open(run_ / "latest").step(), 20);
  EXPECT_EQ(Checkpoint::open(checkpoint_path(run_, 10)).step(), 10);
}

TEST_F(CheckpointTest, DescriptionHoldsShapesAndState) {
  const json description = describe_checkpoint(save(10, 2));
  EXPECT_EQ(description["kind"], "checkpoint");
  EXPECT_EQ(description["step"], 10);
  EXPECT_EQ(description["arrays"]["table"], (json{kRows, kCols}));
  EXPECT_EQ(description["parts"].size(), 2u);
  EXPECT_GT(description["bytes"], kRows * kCols * 4);
  EXPECT_EQ(description["state"]["epoch"], 1);
  flip_byte(checkpoint_path(run_, 10) / "part-00001.h5", 2000);
  EXPECT_THAT(message_of([&] { describe_checkpoint(checkpoint_path(run_, 10)); }),
              HasSubstr("is damaged"));
}

}  // namespace
}  // namespace kt
