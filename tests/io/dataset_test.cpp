#include "io/dataset/dataset.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "io/dataset/duration_p80.h"
#include "io/dataset/hdf5_file.h"
#include "io/dataset/label_ranks.h"
#include "io/dataset/label_sums.h"
#include "tests/io/small_source.h"

namespace kt {
namespace {

using ::testing::AllOf;
using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// A data set of the plain tables, to damage.
class DatasetFiles : public SmallSource {
 protected:
  void SetUp() override {
    SmallSource::SetUp();
    write_plain_tables();
    import();
  }
  Dataset open() const { return Dataset::open(options_.out); }
  void damage(const std::string& name, size_t place) const {
    std::fstream file(options_.out / name, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(place));
    const int byte = file.get();
    file.seekp(static_cast<std::streamoff>(place));
    file.put(static_cast<char>(byte ^ 1));
  }
  std::string manifest() const { return read_all(options_.out / "manifest.json"); }
  void write_manifest(const std::string& text) const {
    std::ofstream(options_.out / "manifest.json", std::ios::binary) << text;
  }
};

// Whichever byte flips, reading says so.
TEST_F(DatasetFiles, AnyFlippedByteOfAShardIsFound) {
  const auto size = std::filesystem::file_size(options_.out / "shards/shard-0001.h5");
  for (size_t place = 0; place < size; place += 97) {
    damage("shards/shard-0001.h5", place);
    EXPECT_THAT(user_error_of([&] { open().read_shard(1); }),
                AllOf(HasSubstr("shard-0001.h5: is damaged"), HasSubstr("expected"),
                      HasSubstr("import the data set again")))
        << "byte " << place;
    EXPECT_EQ(open().read_shard(0).size(), 2);
    damage("shards/shard-0001.h5", place);
  }
  EXPECT_EQ(open().read_shard(1).size(), 1);
}

TEST_F(DatasetFiles, EveryReaderChecksItsFile) {
  damage("ids.h5", 3000);
  EXPECT_THAT(user_error_of([&] { open().read_ids(); }), HasSubstr("ids.h5: is damaged"));
  damage("test.h5", 3000);
  EXPECT_THAT(user_error_of([&] { open().read_test(); }), HasSubstr("test.h5: is damaged"));
  damage("shards/shard-0000.h5", 3000);
  EXPECT_THAT(user_error_of([&] { open().read_timestamps(0); }),
              HasSubstr("shard-0000.h5: is damaged"));
  EXPECT_THAT(user_error_of([&] { open().verify(); }), HasSubstr("is damaged"));
}

TEST_F(DatasetFiles, ATruncatedShardIsFound) {
  const auto path = options_.out / "shards/shard-0002.h5";
  const auto size = std::filesystem::file_size(path);
  std::filesystem::resize_file(path, size - 8);
  EXPECT_THAT(
      user_error_of([&] { open().read_shard(2); }),
      AllOf(HasSubstr(fmt::format("shard-0002.h5: has {} bytes, expected {}", size - 8, size)),
            HasSubstr("import the data set again")));
}

TEST_F(DatasetFiles, DurationsOfTheRowsOfAShard) {
  const Dataset official = open();
  EXPECT_TRUE(official.has_durations());
  const Durations durations = official.read_durations(0);
  EXPECT_THAT(durations.play_duration, ElementsAre(500, 2000));
  EXPECT_THAT(durations.video_duration, ElementsAre(1000, 1000));
  EXPECT_THAT(official.read_durations(1).play_duration, ElementsAre(250));
  EXPECT_THAT(official.read_durations(3).play_duration, IsEmpty());

  // A column of that name is a label like any other.
  write("table.csv", "u,i,video_duration\na,b,1\n");
  options_.source = source() / "table.csv";
  options_.out = root_ / "mapped";
  options_.map = ColumnMap{"u", "i", "video_duration", ""};
  const Dataset mapped = import();
  EXPECT_FALSE(mapped.has_durations());
  EXPECT_THAT(user_error_of([&] { mapped.read_durations(0); }),
              AllOf(HasSubstr("mapped: the training rows have no play_duration and video_duration"),
                    HasSubstr("import a folder in the official layout")));
}

TEST_F(DatasetFiles, AMissingShardIsFound) {
  std::filesystem::remove(options_.out / "shards/shard-0003.h5");
  EXPECT_THAT(user_error_of([&] { open().read_shard(3); }),
              AllOf(HasSubstr("shard-0003.h5: missing"), HasSubstr("import the data set again")));
  EXPECT_THAT(user_error_of([&] { open().verify(); }), HasSubstr("shard-0003.h5: missing"));
}

TEST_F(DatasetFiles, AnotherSchemaVersionIsRefused) {
  std::string text = manifest();
  const std::string now = "\"schema_version\": 1";
  text.replace(text.find(now), now.size(), "\"schema_version\": 7");
  write_manifest(text);
  EXPECT_THAT(user_error_of([&] { open(); }),
              AllOf(HasSubstr("manifest.json"), HasSubstr("schema_version is 7, expected 1"),
                    HasSubstr("import the data set again")));
}

TEST_F(DatasetFiles, AnAlteredManifestIsRefused) {
  std::string text = manifest();
  const std::string rows = "\"train_rows\": 3";
  text.replace(text.find(rows), rows.size(), "\"train_rows\": 4");
  write_manifest(text);
  EXPECT_THAT(user_error_of([&] { open(); }), HasSubstr("manifest.json: is damaged"));
  write_manifest(text.substr(0, text.size() / 2));
  EXPECT_THAT(user_error_of([&] { open(); }),
              AllOf(HasSubstr("manifest.json"), HasSubstr("damaged")));
  write_manifest("");
  EXPECT_THAT(user_error_of([&] { open(); }), HasSubstr("manifest.json"));
}

TEST_F(DatasetFiles, WhatIsNoDataSet) {
  EXPECT_THAT(user_error_of([&] { Dataset::open(root_ / "nothing"); }),
              AllOf(HasSubstr("nothing: no such folder"), HasSubstr("kuaitrain import")));
  EXPECT_THAT(user_error_of([&] { Dataset::open(source()); }),
              HasSubstr("manifest.json: no such file"));
}

TEST_F(DatasetFiles, NoTimesAndNoFoldersInTheManifest) {
  const std::string text = manifest();
  EXPECT_EQ(text.find(root_.string()), text.npos);
  const std::filesystem::path first = options_.out;
  options_.out = root_ / "elsewhere";
  import();
  EXPECT_EQ(read_all(options_.out / "manifest.json"), text);
}

TEST_F(DatasetFiles, Described) {
  const nlohmann::json whole = describe_dataset(options_.out);
  EXPECT_EQ(whole["kind"], "dataset");
  EXPECT_EQ(whole["manifest"]["train_rows"], 3);
  const nlohmann::json shard = describe_dataset_file(options_.out / "shards/shard-0001.h5");
  EXPECT_EQ(shard["shard"]["rows"], 1);
  EXPECT_EQ(shard["columns"]["label"]["type"], "float32");
  EXPECT_EQ(shard["columns"]["label"]["shape"], nlohmann::json({1}));
  EXPECT_EQ(describe_dataset_file(options_.out / "ids.h5")["columns"]["user_rows"]["type"],
            "int64");

  damage("shards/shard-0001.h5", 2500);
  EXPECT_THAT(user_error_of([&] { describe_dataset(options_.out); }), HasSubstr("is damaged"));
  EXPECT_THAT(user_error_of([&] { describe_dataset_file(options_.out / "shards/shard-0001.h5"); }),
              HasSubstr("is damaged"));
  EXPECT_THAT(user_error_of([&] { describe_dataset_file(options_.out / "manifest.json"); }),
              HasSubstr("not a file of the data set"));
  EXPECT_THAT(user_error_of([&] { describe_dataset_file(source() / "big_matrix.csv"); }),
              HasSubstr("no manifest.json"));
}

// A few pairs, and more than a label range of each of several users; many labels are equal.
TEST(LabelRanks, AreCountsOfLowerLabels) {
  std::mt19937 random(3);
  for (const size_t n : {1, 40, 3000}) {
    SCOPED_TRACE(n);
    std::vector<double> label(n);
    for (double& one : label) one = static_cast<double>(random() % n) / 7 - 10;
    std::ranges::fill(std::span(label).first(n / 3), -0.);
    const std::vector<int64_t> offsets{0, static_cast<int64_t>(n) / 4, static_cast<int64_t>(n) / 4,
                                       static_cast<int64_t>(n)};
    std::vector<double> sorted = label;
    std::ranges::sort(sorted);
    for (const int threads : {1, 3}) {
      ThreadPool pool(threads);
      const LabelRanks ranks = rank_labels(offsets, label, pool);
      for (size_t u = 0; u + 1 < offsets.size(); ++u) {
        const auto first = static_cast<size_t>(offsets[u]),
                   size = static_cast<size_t>(offsets[u + 1]) - first;
        std::vector<uint32_t> places(size);
        for (uint32_t i = 0; i < size; ++i) places[i] = i;
        std::ranges::stable_sort(places, {}, [&](uint32_t i) { return label[first + i]; });
        for (size_t i = 0; i < size; ++i) {
          ASSERT_EQ(ranks.by_label[first + i], places[i]);
          ASSERT_EQ(ranks.rank[first + i],
                    std::ranges::lower_bound(sorted, label[first + places[i]]) - sorted.begin());
        }
      }
    }
  }
}

TEST(LabelSums, AreOfEachUsersPairsInTheirOrder) {
  const std::vector<double> label{.1, .2, 7, -1, 3};
  const std::vector<int64_t> offsets{0, 3, 3, 5};
  for (const int threads : {1, 2}) {
    ThreadPool pool(threads);
    const LabelSums sums = sum_labels(offsets, label, pool);
    EXPECT_THAT(sums.label, ElementsAre(.1 + .2 + 7, 0, 2));
    EXPECT_THAT(sums.gain, ElementsAre(.1 + .2 + 5, 0, 3));
    EXPECT_THAT(sums.gain_exp,
                ElementsAre(DoubleEq(std::exp2(.1) - 1 + (std::exp2(.2) - 1) + 31), 0, 7));
  }
}

/// As two users and one without pairs, by two threads.
std::vector<uint8_t> marks(const std::vector<int32_t>& duration, const std::vector<double>& label) {
  ThreadPool pool(2);
  const auto n = std::ssize(label);
  const std::vector<int64_t> offsets{0, n / 3, n / 3, n};
  const LabelRanks ranks = rank_labels(offsets, label, pool);
  return mark_duration_p80(offsets, duration, ranks.by_label, ranks.rank, pool);
}

TEST(DurationP80, DurationBucketsOfEqualCount) {
  // 40 durations, two a bucket: the higher label of each two.
  std::vector<int32_t> duration(40);
  std::iota(duration.begin(), duration.end(), 0);
  std::vector<double> label;
  for (int i = 0; i < 40; ++i) label.push_back(i % 4 == 0 || i % 4 == 3 ? 2 : 1);
  std::vector<uint8_t> expected;
  for (double value : label) expected.push_back(value > 1.5);
  EXPECT_EQ(marks(duration, label), expected);
}

TEST(DurationP80, EqualDurationsShareABucket) {
  const std::vector<int32_t> duration(40, 7);
  std::vector<double> label(40);
  std::iota(label.begin(), label.end(), 0.0);
  const auto relevant = marks(duration, label);
  // Percentile at rank .8 * 39 = 31.2, between 31 and 32.
  for (size_t i = 0; i < 40; ++i) EXPECT_EQ(relevant[i], i >= 32) << i;
}

}  // namespace
}  // namespace kt
