// Text a user names or brings, through the program: no file, column, id or path ends in a bug, none is misread.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "tests/support/run_program.h"

namespace kt {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

namespace fs = std::filesystem;

/// A trained run on ratings, in a folder whose name is not UTF-8.
class ProgramText : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-text");
    write_ratings(folder());
    import_ratings(folder());
    fs::create_directory(folder() / "d\xe4");
    fs::copy(folder() / "ratings", folder() / "d\xe4/set", fs::copy_options::recursive);
    trained_ = run({"data.path=" + path("ratings"), "model.content=none", "train.epochs=1",
                    "train.global_batch=256", "run.dir=" + path("run")});
    fs::rename(folder() / "run", folder() / "r\xe4n");
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }
  static std::string path(const std::string& name) { return (folder() / name).string(); }
  static Ended run(const Arguments& arguments, const Launch& launch = {}) {
    return run_program(folder() / "work", arguments, launch);
  }
  static Ended import(const std::string& table, const Arguments& more = {}) {
    Arguments arguments{"import", path(table), "--out", path("made"), "--shards", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    if (more.empty() || std::find(more.begin(), more.end(), "--map") == more.end()) {
      arguments.push_back("--map");
      arguments.push_back("user=user,item=item,label=label");
    }
    fs::remove_all(folder() / "made");
    return run(arguments);
  }

  static std::unique_ptr<Workshop> shop_;
  static Ended trained_;
};
std::unique_ptr<Workshop> ProgramText::shop_;
Ended ProgramText::trained_;

// What a configuration holds is text, and has to read back; what stands on the command line may have any name.
TEST_F(ProgramText, PathsThatAreNotUtf8AreFineOrRefusedBeforeTheWork) {
  EXPECT_EQ(trained_.code, 0) << trained_.err;
  for (const char* key : {"data.path", "run.dir"}) {
    const Ended refused = run({std::string(key) + "=" + path("d\xe4/set")});
    EXPECT_EQ(refused.code, 2) << refused.err;
    EXPECT_THAT(refused.errors(),
                ElementsAre(AllOf(HasSubstr(key), HasSubstr("expected UTF-8 text"))));
    EXPECT_THAT(refused.out + refused.err, Not(HasSubstr("\xe4")));
  }
  for (const Arguments& arguments : {Arguments{"recommend", path("r\xe4n"), "--user", "whale"},
                                     {"evaluate", path("r\xe4n")},
                                     {"inspect", path("d\xe4/set")},
                                     {"inspect", path("d\xe4/set/ids.h5")}}) {
    Arguments with_json = arguments;
    with_json.push_back("--json");
    const Ended ended = run(with_json);
    EXPECT_EQ(ended.code, 0) << arguments[0] << ended.err;
    EXPECT_FALSE(json::parse(ended.out, nullptr, false).is_discarded()) << ended.out;
  }
}

TEST_F(ProgramText, FilesAndColumnsThatAreNotUtf8) {
  write_file(folder() / "t\xe4.csv", "user,item,label\na,b,1\n");
  const Ended named = import("t\xe4.csv", {"--json"});
  EXPECT_EQ(named.code, 0) << named.err;
  EXPECT_FALSE(json::parse(named.out, nullptr, false).is_discarded());
  EXPECT_EQ(json_file(folder() / "made/manifest.json").at("source")[0].at("name"), "t\\xe4.csv");

  write_file(folder() / "latin1.csv", "user,item,bew\xe4rtung\na,b,1\n");
  const Ended column = import("latin1.csv", {"--map", "user=user,item=item,label=bew\xe4rtung"});
  EXPECT_EQ(column.code, 2);
  EXPECT_THAT(column.errors(),
              ElementsAre(AllOf(HasSubstr("latin1.csv:1: "), HasSubstr("\"bew\\xe4rtung\""),
                                HasSubstr("not UTF-8; convert the file: iconv"))));
  EXPECT_FALSE(fs::exists(folder() / "made"));
}

TEST_F(ProgramText, MessagesDoNotEndAtANul) {
  using namespace std::string_literals;
  write_file(folder() / "wide.csv", "\xFF\xFEu\0s\0e\0r\0\n\0"s);
  const Ended wide = import("wide.csv");
  EXPECT_EQ(wide.code, 2);
  EXPECT_THAT(wide.errors(), ElementsAre(AllOf(HasSubstr("wide.csv: is UTF-16 text"),
                                               HasSubstr("iconv -f UTF-16LE -t UTF-8"))));
  write_file(folder() / "nul.csv", "user,item,label\nu\0,i,\x1b[2Jx\n"s);
  const Ended nul = import("nul.csv");
  EXPECT_EQ(nul.code, 2);
  EXPECT_THAT(nul.errors(), ElementsAre(AllOf(HasSubstr("nul.csv:2: a NUL byte"),
                                              HasSubstr("--skip-malformed"))));
  write_file(folder() / "escape.csv", "user,item,label\nu,i,\x1b[2Jx\n"s);
  EXPECT_THAT(
      import("escape.csv").errors(),
      ElementsAre(HasSubstr("escape.csv:2: label is \"\\x1b[2Jx\", expected a finite number")));
}

TEST_F(ProgramText, QuotedLineEndsMakeNoRows) {
  write_file(folder() / "reviews.csv",
             "user,item,label,text\n"
             "u1,i2,5,\"nice\nbook\"\n"
             "u2,i2,4,fine\n"
             "u2,i3,4,\"bad:\n9,9,1,as they say\"\n");
  for (const Arguments& more : {Arguments{}, {"--skip-malformed"}}) {
    const Ended ended = import("reviews.csv", more);
    EXPECT_EQ(ended.code, 0) << ended.err;
    const json manifest = json_file(folder() / "made/manifest.json");
    EXPECT_EQ(manifest.at("train_rows"), 3);
    EXPECT_EQ(manifest.at("users"), 2);
  }
}

TEST_F(ProgramText, ATableInTheLayoutOfMovieLens) {
  write_file(folder() / "ratings.dat", "1::10::5::978300760\n1::\"11::3::2000-12-31T22:13:22Z");
  const Ended ended = import("ratings.dat", {"--delimiter", "::", "--no-header", "--quote", "none",
                                             "--map", "user=1,item=2,label=3,time=4"});
  EXPECT_EQ(ended.code, 0) << ended.err;
  const json manifest = json_file(folder() / "made/manifest.json");
  EXPECT_EQ(manifest.at("train_rows"), 2);
  EXPECT_EQ(manifest.at("columns").at("train").at("timestamp").at("max"), 978300802);
}

TEST_F(ProgramText, OptionsOfImportThatMeanNothingAreRefused) {
  write_file(folder() / "t.csv", "user,item,label\na,b,1\n");
  for (const Arguments& more : {Arguments{"--quote", "single"},
                                {"--delimiter", ""},
                                {"--map", ""},
                                {"--no-header", "--map", "user=user,item=item,label=label"}}) {
    const Ended ended = import("t.csv", more);
    EXPECT_EQ(ended.code, 2) << more[0] << " " << more[1] << ended.out;
    EXPECT_THAT(ended.err, HasSubstr(more[more.size() > 2 ? 1 : 0]));
    EXPECT_FALSE(fs::exists(folder() / "made"));
  }
  const Ended official = run({"import", path("."), "--no-header", "--out", path("made")});
  EXPECT_EQ(official.code, 2);
  EXPECT_THAT(official.errors(), ElementsAre(HasSubstr("--no-header: belongs to --map")));
}

TEST_F(ProgramText, PairsWithoutLabelsAreScored) {
  write_file(folder() / "pairs.csv", "user_id,video_id\nwhale,item-1\nuser 1,item-2\nwhale,item-3");
  const Ended ended = run({"evaluate", path("r\xe4n"), "--pairs", path("pairs.csv"), "--scores",
                           path("scores.csv"), "--json"},
                          {.ranks = 2});
  ASSERT_EQ(ended.code, 0) << ended.err;
  const json report = json::parse(ended.out);
  EXPECT_EQ(report.at("pairs"), 3);
  EXPECT_TRUE(report.at("metrics").empty());
  EXPECT_THAT(report.at("notes").at(0), HasSubstr("no labels"));
  const std::string scores = file_text(folder() / "scores.csv");
  EXPECT_THAT(scores, AllOf(HasSubstr("\nuser 1,item-2,,"), HasSubstr("\nwhale,item-3,,")));
  EXPECT_EQ(std::count(scores.begin(), scores.end(), '\n'), 4);

  for (const auto& [text, says] :
       {std::pair{"user_id,video_id,watch_ratio\nwhale,\"item-1\"x,1\n",
                  ":2: text after a closing quote"},
        {"user_id,video_id,watch_ratio\nwhale,item-1,1e300\n", ":2: watch_ratio: got \"1e300\""}}) {
    write_file(folder() / "bad.csv", text);
    const Ended bad = run({"evaluate", path("r\xe4n"), "--pairs", path("bad.csv")});
    EXPECT_EQ(bad.code, 2);
    EXPECT_THAT(bad.errors(), ElementsAre(HasSubstr(says)));
  }
}

TEST_F(ProgramText, TheFirstUseByTwoAtOnceIsFine) {
  // What a program prints is kept beside its folder: a link makes two of one.
  const fs::path here = folder() / "first";
  fs::create_directory(here);
  fs::create_directory_symlink(here, folder() / "same");
  const auto arguments = [](const std::string& name) {
    return Arguments{"train.max_steps=1", "model.content=none", "run.dir=" + path(name), "--quiet"};
  };
  Program one(here, arguments("one")), two(folder() / "same", arguments("two"));
  const Ended first = one.wait(), second = two.wait();
  EXPECT_EQ(first.code, 0) << first.err;
  EXPECT_EQ(second.code, 0) << second.err;
  EXPECT_THAT(names_in(here / "kuaitrain-data"),
              ElementsAre("synthetic-0.05", "synthetic-0.05-csv"));
}

}  // namespace
}  // namespace kt
