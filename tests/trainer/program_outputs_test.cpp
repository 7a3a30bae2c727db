// Where results go: links, pipes, streams, folders that are not there, and standard output itself.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "tests/support/run_program.h"

namespace kt {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

namespace fs = std::filesystem;

class Outputs : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-outputs");
    write_ratings(folder());
    import_ratings(folder());
    ASSERT_EQ(train("run").code, 0);
    fs::create_directories(folder() / "out");
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }
  static std::string path(const std::string& name) { return (folder() / name).string(); }

  static Ended run(const Arguments& arguments) { return run_program(folder() / "work", arguments); }
  static Ended train(const std::string& name, const Arguments& more = {}) {
    Arguments arguments{"data.path=" + path("ratings"), "model.content=none",
                        "train.global_batch=64", "train.epochs=1", "run.dir=" + path(name)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  /// In a shell, which says what becomes of standard output; "$KT" is the program.
  static Ended shell(const std::string& command) {
    return run_program(folder() / "work", {"-c", fmt::format("KT={}; {}", KT_PROGRAM, command)},
                       {.program = "/bin/bash"});
  }
  static void expect_refused(const Ended& ended, const std::string& message) {
    EXPECT_EQ(ended.code, 2) << ended.out << ended.err;
    EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr(message))) << ended.err;
    EXPECT_THAT(ended.out, Not(HasSubstr("evaluated in")));  // before the work
  }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> Outputs::shop_;

constexpr const char* kHeader = "user_id,video_id,watch_ratio,score\n";

TEST_F(Outputs, LinksAreFollowed) {
  fs::create_directories(folder() / "far");
  write_file(folder() / "far" / "scores.csv", "");
  fs::create_symlink("../far/scores.csv", folder() / "out" / "link.csv");
  fs::create_symlink("link.csv", folder() / "out" / "second.csv");
  ASSERT_EQ(run({"evaluate", path("run"), "--scores", path("out/second.csv")}).code, 0);
  EXPECT_THAT(file_text(folder() / "far" / "scores.csv"), StartsWith(kHeader));
  EXPECT_TRUE(fs::is_symlink(folder() / "out" / "second.csv"));
  EXPECT_TRUE(fs::is_symlink(folder() / "out" / "link.csv"));
  EXPECT_THAT(names_in(folder() / "far"), ElementsAre("scores.csv"));
  // To a file that is not there yet.
  fs::create_symlink("../far/lists.csv", folder() / "out" / "new.csv");
  ASSERT_EQ(run({"recommend", path("run"), "--all-users", "--out", path("out/new.csv")}).code, 0);
  EXPECT_THAT(file_text(folder() / "far" / "lists.csv"), StartsWith("user_id,rank,"));
  EXPECT_TRUE(fs::is_symlink(folder() / "out" / "new.csv"));
}

TEST_F(Outputs, PipesAndStreamsAreWrittenTo) {
  const Ended pipe =
      shell(fmt::format("mkfifo pipe && {{ cat pipe & }} && $KT evaluate {} --scores pipe --quiet "
                        "&& wait && test -p pipe",
                        path("run")));
  EXPECT_EQ(pipe.code, 0) << pipe.err;
  EXPECT_THAT(pipe.out, StartsWith(kHeader));
  for (const char* redirection : {"| cat", "> stream.csv; cat stream.csv"}) {
    const Ended stream =
        shell(fmt::format("ln -sf /proc/self/fd/1 stream; set -o pipefail; $KT evaluate {} "
                          "--scores stream {}",
                          path("run"), redirection));
    EXPECT_EQ(stream.code, 0) << stream.err;
    // After what was printed before, and before what comes after.
    EXPECT_THAT(stream.out, AllOf(HasSubstr("evaluated in"), HasSubstr(kHeader),
                                  HasSubstr("scores: stream, ")));
    EXPECT_TRUE(fs::is_symlink(folder() / "work" / "stream"));
  }
}

TEST_F(Outputs, WhatCannotBeWrittenIsRefusedBeforeTheWork) {
  for (const Arguments& command :
       {Arguments{"evaluate", path("run"), "--scores"},
        Arguments{"evaluate", path("run"), "--per-user"},
        Arguments{"recommend", path("run"), "--all-users", "--out"},
        Arguments{"recommend", path("run"), "--user", "whale", "--out"}}) {
    const auto to = [&](const std::string& name) {
      Arguments all = command;
      all.push_back(path(name));
      return run(all);
    };
    expect_refused(to("none/a.csv"),
                   fmt::format("none/a.csv: cannot write it: there is no folder {}", path("none")));
    expect_refused(to("out"), "out: is a folder, expected a file to write");
    expect_refused(to("out/"), "out/: is a folder, expected a file to write");
    expect_refused(to("ratings.tsv/a.csv"), "ratings.tsv/a.csv: cannot write it");
  }
  expect_refused(run({"evaluate", path("run"), "--scores", "/proc/a.csv"}), "/proc/a.csv: cannot");
  expect_refused(run({"import", path("ratings.tsv"), "--map", "user=who,item=what,label=stars",
                      "--delimiter", "tab", "--out", path("ratings.tsv/made")}),
                 "cannot write it");
  expect_refused(run({"synth", "--scale", "0.002", "--out", path("ratings.tsv/made")}),
                 "cannot write it");
  expect_refused(train("ratings.tsv"), "choose another run.dir");
  EXPECT_EQ(train("deep/er/run").code, 0);
}

TEST_F(Outputs, RecommendationsOfAUserAreWrittenToo) {
  const Ended ended =
      run({"recommend", path("run"), "--user", "whale", "--top", "2", "--out", path("out/u.csv")});
  ASSERT_EQ(ended.code, 0) << ended.err;
  const std::string text = file_text(folder() / "out" / "u.csv");
  EXPECT_THAT(text,
              AllOf(StartsWith("user_id,rank,video_id,score\nwhale,1,"), HasSubstr("\nwhale,2,")));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
}

TEST_F(Outputs, AFullStandardOutputIsAFault) {
  write_file(folder() / "c.yaml", "train:\n  epochs: 1\n");
  const std::string ratings = path("ratings");
  for (const std::string& command :
       {fmt::format("evaluate {} --json --quiet", path("run")),
        fmt::format("evaluate {}", path("run")),
        fmt::format("recommend {} --user whale --json", path("run")),
        fmt::format("validate {} --json", path("c.yaml")), std::string("plan --ranks 2 --json"),
        fmt::format("inspect {}", ratings), std::string("--help"), std::string("--version")}) {
    const Ended full = shell(fmt::format("$KT {} > /dev/full", command));
    EXPECT_EQ(full.code, 2) << command << full.err;
    EXPECT_THAT(full.err, HasSubstr("error: standard output: No space left on device; free space"))
        << command;
    const Ended closed = shell(fmt::format("$KT {} >&-", command));
    EXPECT_EQ(closed.code, 2) << command << closed.err;
    EXPECT_THAT(closed.err, HasSubstr("error: standard output: Bad file descriptor")) << command;
  }
}

TEST_F(Outputs, AReaderThatGoesAwayIsNone) {
  for (const std::string& command : {fmt::format("evaluate {} --json", path("run")),
                                     std::string("validate --help"), std::string("--help")}) {
    const Ended ended = shell(
        fmt::format("{{ $KT {} 2> err; echo code $? >> err; }} | true; cat err; rm err", command));
    EXPECT_THAT(ended.out, HasSubstr("code 0"));
    EXPECT_THAT(ended.out, Not(HasSubstr("error: ")));
  }
}

TEST_F(Outputs, StandardErrorMayBeFullOrClosed) {
  for (const char* stream : {"2> /dev/full", "2>&-", "2>&- <&-"}) {
    EXPECT_EQ(shell(fmt::format("$KT evaluate {} --json {}", path("run"), stream)).code, 0);
    EXPECT_EQ(shell(fmt::format("$KT evaluate {} {}", path("out"), stream)).code, 2);
  }
  // No file gets the number of a closed stream: the log does not end up in a checkpoint.
  ASSERT_EQ(shell(fmt::format("$KT data.path={} model.content=none train.epochs=1 run.dir={} "
                              "checkpoint.every_steps=1 <&- 2>&-",
                              path("ratings"), path("closed")))
                .code,
            0);
  EXPECT_EQ(run({"inspect", path("closed/latest")}).code, 0);
}

TEST_F(Outputs, ACopyOfARunWithoutLinksGoesOn) {
  fs::copy(folder() / "run", folder() / "copy", fs::copy_options::recursive);
  fs::remove(folder() / "copy" / "result.json");
  const Ended ended = train("copy", {"train.epochs=3"});
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_THAT(ended.errors(), IsEmpty());
  EXPECT_THAT(ended.err, AllOf(HasSubstr("warning: " + path("copy/latest") + ": cannot be made a"),
                               HasSubstr("the run goes on without it"), Not(HasSubstr("permis"))));
  EXPECT_EQ(ended.err.find("copy/latest"), ended.err.rfind("copy/latest"));  // said once
  EXPECT_FALSE(fs::exists(folder() / "copy" / ".tmp-latest"));
}

TEST_F(Outputs, ALockedShardIsNotCalledDamaged) {
  const Ended ended = shell(fmt::format(
      "exec 9< {}/shards/shard-0001.h5; flock -x 9; HDF5_USE_FILE_LOCKING=TRUE $KT data.path={} "
      "model.content=none train.epochs=1 run.dir={}",
      path("ratings"), path("ratings"), path("locked")));
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(
      ended.errors(),
      ElementsAre(AllOf(HasSubstr("shard-0001.h5"), HasSubstr("cannot lock it"),
                        HasSubstr("HDF5_USE_FILE_LOCKING=FALSE"), Not(HasSubstr("damaged")))));
}

}  // namespace
}  // namespace kt
