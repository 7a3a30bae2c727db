// `kuaitrain analyze`: its numbers beside those of pandas, its page in a browser.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "tests/support/browser.h"
#include "tests/support/run_program.h"

namespace kt {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

namespace fs = std::filesystem;

class Analyze : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-analyze");
    make_replica(folder(), 8);
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }
  static std::string path(const std::string& name) { return (folder() / name).string(); }
  static Ended run(const Arguments& arguments) { return run_program(folder() / "work", arguments); }

  /// Imports `name`-csv as `name`; `more` are arguments of the import.
  static void import(const std::string& name, const Arguments& more = {}) {
    Arguments arguments{"import", path(name + "-csv"), "--out", path(name), "--shards", "4"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Ended ended = run(arguments);
    ASSERT_EQ(ended.code, 0) << ended.err;
  }
  /// The numbers of `dataset`, kept in `dataset`.json beside its page `dataset`.html.
  static json analyze(const std::string& dataset) {
    const Ended ended = run({"analyze", path(dataset), "--out", path(dataset + ".html"), "--json"});
    EXPECT_EQ(ended.code, 0) << ended.err;
    EXPECT_THAT(ended.out, Not(HasSubstr("NaN")));
    write_file(folder() / (dataset + ".json"), ended.out);
    return json::parse(ended.out);
  }
  /// What a browser finds in the page; every section has to be there.
  static json page(const std::string& dataset) {
    json seen = look_at(folder() / (dataset + ".html"));
    EXPECT_THAT(seen["sections"], ElementsAre("summary", "tables", "missing", "users", "videos",
                                              "label", "engagement", "correlation", "components",
                                              "thresholds", "pitfalls", "activity", "popularity",
                                              "friends", "categories", "user-columns", "replica"));
    return seen;
  }
  /// The difference to what pandas computes from the CSV files; empty: none.
  static std::string difference_to_pandas(const fs::path& source, const std::string& dataset) {
    const std::string command =
        fmt::format("/usr/bin/python3 '{}' '{}' '{}' 2>&1", KT_ANALYSIS_REFERENCE, source.string(),
                    path(dataset + ".json"));
    std::FILE* pipe = popen(command.c_str(), "r");
    std::string text;
    std::array<char, 1 << 12> part{};
    for (size_t n; (n = std::fread(part.data(), 1, part.size(), pipe)) > 0;)
      text.append(part.data(), n);
    return pclose(pipe) == 0 ? "" : text;
  }
  static void write_csv(const std::string& name, const std::string& file, const std::string& text) {
    fs::create_directories(folder() / (name + "-csv"));
    write_file(folder() / (name + "-csv") / file, text);
  }

 private:
  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> Analyze::shop_;

TEST_F(Analyze, OfAReplicaIsWhatPandasFindsOnAnyNumberOfThreadsAndShowsKuaiRecsFiguresApart) {
  const json numbers = analyze("dataset");
  EXPECT_EQ(difference_to_pandas(folder() / "source", "dataset"), "");
  const Ended threads = run({"analyze", path("dataset"), "--json", "--threads", "3"});
  EXPECT_EQ(threads.out, file_text(folder() / "dataset.json"));

  // KuaiRec's figures are those of its documentation, beside the replica's own.
  const json& figures = numbers.at("replica").at("figures");
  EXPECT_EQ(figures.size(), 73u);
  EXPECT_EQ(figures[3], (json{{"what", "training: watch_ratio, 50 %"},
                              {"kuairec", .72347},
                              {"here", numbers.at("training").at("label").at("50%")}}));

  const json seen = page("dataset");
  for (const json& picture : seen["pictures"]) EXPECT_GT(picture["marks"], 0) << picture;
  EXPECT_EQ(seen["pictures"].size(), 23u);
  const std::string text = seen["text"];
  EXPECT_THAT(text, HasSubstr("This is synthetic data"));
  EXPECT_THAT(text, HasSubstr("Figures that do not depend on scale"));
  EXPECT_THAT(text, Not(HasSubstr("not available")));
}

TEST_F(Analyze, OfAnotherTableSaysByNameWhatItLacks) {
  write_ratings(folder());
  import_ratings(folder());
  const json numbers = analyze("ratings");
  EXPECT_EQ(numbers["dataset"]["time_zone"], "UTC");
  EXPECT_EQ(numbers["training"]["rows"], 3000);
  EXPECT_EQ(numbers["training"]["label"]["max"], 5);
  EXPECT_EQ(numbers["training"]["by_user"]["rows"]["max"], 1500);  // the whale
  EXPECT_EQ(numbers["training"]["activity"]["days"][0],
            (json{{"date", "2020-09-13"}, {"rows", 694}}));
  EXPECT_EQ(numbers["replica"], (json{{"absent", "the data is no synthetic replica"}}));
  const std::string text = page("ratings")["text"];
  for (const char* lacking :
       {"Daily features: not available, the source had no item_daily_features.csv.",
        "Friends: not available, the source had no social_network.csv.",
        "Tags: not available, the source had no item_categories.csv.",
        "Duration bias, training: not available, the table has no play_duration and "
        "video_duration.",
        "User features: not available, the source had no user_features.csv."})
    EXPECT_THAT(text, HasSubstr(lacking));
  EXPECT_THAT(text, Not(HasSubstr("KuaiRec 2.0 (")));
  EXPECT_THAT(text, Not(HasSubstr("synthetic data")));
}

TEST_F(Analyze, OfOneUserWhoseRatiosAreAllEqualHasUndefinedCorrelationsAndShowsMarkupAsText) {
  const std::string markup = "</script><script>alert(1)</script><b>'&";
  const auto header = [](const char* file) {
    const std::string text = file_text(folder() / "source" / file);
    return text.substr(0, text.find('\n') + 1);
  };
  std::string rows = header("big_matrix.csv"), captions = header("kuairec_caption_category.csv"),
              daily = header("item_daily_features.csv");
  for (int video = 0; video < 4; ++video) {
    for (int row = 0; row <= video; ++row) rows += fmt::format("7,{},{},1000,,,,0.1\n", video, 100);
    captions +=
        fmt::format("{},UNKNOWN,{},[],1,{},-124,UNKNOWN,-124,UNKNOWN\n", video, markup, markup);
    daily += fmt::format("{},20200705,1,NORMAL,2020-03-30,ShortImport,public,{}.0,720,1280,1,1,",
                         video, 1000 + 100 * video);
    for (int cell = 0; cell < 45; ++cell)
      daily += fmt::format(",{}", 10 + (7 * cell + video * video * (cell % 5 + 1)) % 50);
    daily += "\n";
  }
  write_csv("equal", "big_matrix.csv", rows);
  write_csv("equal", "small_matrix.csv", header("small_matrix.csv") + "7,4,100,1000,,,,0.1\n");
  write_csv("equal", "kuairec_caption_category.csv", captions);
  write_csv("equal", "item_daily_features.csv", daily);
  import("equal");
  const json numbers = analyze("equal");
  EXPECT_EQ(difference_to_pandas(folder() / "equal-csv", "equal"), "");
  for (const json& one : numbers["engagement"]["correlations_with_mean"])
    EXPECT_TRUE(one["correlation"].is_null()) << one;
  EXPECT_EQ(numbers["training"]["repeats"],
            (json{{"rows", 6}, {"share", .6}, {"most_of_a_pair", 4}}));
  EXPECT_EQ(numbers["test"]["by_user"]["highest_variance"], json::array());

  const std::string text = page("equal")["text"];
  EXPECT_THAT(text, HasSubstr(markup));
  EXPECT_THAT(text, HasSubstr("Correlations are undefined"));
  EXPECT_THAT(text, HasSubstr("Activity, training: not available, no row has a timestamp."));
}

TEST_F(Analyze, OfOneRowWithoutATestTableIsAPage) {
  write_file(folder() / "one-csv", "who,what,stars\na,x,1\n");
  import("one", {"--map", "user=who,item=what,label=stars"});
  const json numbers = analyze("one");
  EXPECT_EQ(numbers["test"], (json{{"absent", "the data set has no test table"}}));
  EXPECT_EQ(numbers["training"]["by_user"]["mean"]["std"], nullptr);
  EXPECT_EQ(numbers["training"]["by_video"]["popularity"]["gini"], 0);
  EXPECT_THAT(page("one")["text"].get<std::string>(),
              HasSubstr("Test table: not available, the data set has no test table."));
}

TEST_F(Analyze, RefusesWhatIsNoDataSetAndNothingToDo) {
  const Ended nothing = run({"analyze", path("dataset")});
  EXPECT_EQ(nothing.code, 2);
  EXPECT_THAT(nothing.errors(), ElementsAre(HasSubstr("neither --out nor --json")));
  const Ended absent = run({"analyze", path("absent"), "--out", path("absent.html")});
  EXPECT_EQ(absent.code, 2);
  EXPECT_THAT(absent.errors(), ElementsAre(HasSubstr("no such folder, expected a data set")));
  fs::copy(folder() / "dataset", folder() / "damaged", fs::copy_options::recursive);
  flip_byte(folder() / "damaged" / "shards" / "shard-0001.h5");
  const Ended damaged = run({"analyze", path("damaged"), "--out", path("damaged.html")});
  EXPECT_EQ(damaged.code, 2);
  EXPECT_THAT(damaged.errors(), ElementsAre(HasSubstr("shard-0001.h5")));
  EXPECT_FALSE(fs::exists(path("damaged.html")));
  EXPECT_FALSE(fs::exists(path("absent.html")));
}

}  // namespace
}  // namespace kt
