// What a start loads: libtorch in a run that computes through it, and in no other; and what it needs.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <memory>
#include <sstream>

#include "tests/support/run_program.h"

namespace kt {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

namespace fs = std::filesystem;

class Start : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("kuaitrain-start-test");
    fs::create_directory(folder() / "work");
    make_replica(folder(), 8);
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }
  static std::string path(const std::string& name) { return (folder() / name).string(); }
  static Ended run(const Arguments& arguments, const Launch& launch = {}) {
    return run_program(folder() / "work", arguments, launch);
  }
  static Arguments training(const std::string& config, const std::string& run,
                            const Arguments& more = {}) {
    const fs::path configs = fs::path(KT_TINY_CONFIG).parent_path();
    Arguments arguments{"train", "--config", configs / (config + ".yaml"),
                        "data.path=" + path("dataset"), "run.dir=" + path(run)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  /// The libraries that a command loads which succeeds, in the words of the system's loader.
  static std::vector<std::string> loaded_by(const Arguments& arguments) {
    const fs::path words = folder() / "loader";
    fs::remove_all(words);
    fs::create_directory(words);
    setenv("LD_DEBUG", "files", 1);
    setenv("LD_DEBUG_OUTPUT", (words / "of").c_str(), 1);
    const Ended ended = run(arguments);
    unsetenv("LD_DEBUG");
    unsetenv("LD_DEBUG_OUTPUT");
    EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
    std::vector<std::string> libraries;
    for (const std::string& name : names_in(words)) {
      std::istringstream text(file_text(words / name));
      for (std::string line; std::getline(text, line);)
        if (const auto at = line.find("file="); line.ends_with("generating link map"))
          libraries.push_back(
              fs::path(line.substr(at + 5, line.find(' ', at) - at - 5)).filename());
    }
    EXPECT_THAT(libraries, Contains(HasSubstr("libmpi")));
    // What HDF5 would load for files in S3, and hwloc for the devices of a machine.
    EXPECT_THAT(libraries, Not(Contains(AnyOf(HasSubstr("libcurl"), HasSubstr("hwloc_")))));
    return libraries;
  }
  /// A copy of the program in a folder of its own, where `library` is beside it, if it is named.
  static std::string copy_of_program(const std::string& name, const fs::path& library = {}) {
    fs::create_directory(folder() / name);
    fs::copy_file(KT_PROGRAM, folder() / name / "kuaitrain");
    if (!library.empty()) fs::copy_file(library, folder() / name / "libkuaitrain_torch.so");
    return path(name + "/kuaitrain");
  }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> Start::shop_;

TEST_F(Start, LibrariesAreLoadedWhereTheyCompute) {
  const Arguments commands[] = {
      {"--help"},
      {"validate", KT_TINY_CONFIG, "model.engine=torch"},
      {"import", path("source"), "--out", path("imported")},
      training("tiny", "fused"),
      training("als", "als"),
      {"evaluate", path("fused")},
      {"evaluate", path("gbdt")},
  };
  EXPECT_THAT(loaded_by(training("gbdt", "gbdt")), Contains("lib_lightgbm.so"));
  for (const Arguments& command : commands)
    EXPECT_THAT(loaded_by(command), Not(Contains(AnyOf(HasSubstr("torch"), HasSubstr("lightgbm")))))
        << command.front();
  for (const Arguments& command : {training("tiny", "torch", {"model.engine=torch"}),
                                   training("ease", "ease"), training("svd", "svd")})
    EXPECT_THAT(loaded_by(command),
                AllOf(Contains("libkuaitrain_torch.so"), Contains("libtorch_cpu.so")));
}

TEST_F(Start, ALibraryThatCannotBeLoadedIsOneError) {
  const std::string program = copy_of_program("alone");
  for (const int ranks : {0, 2}) {
    const Ended ended = run(training("tiny", "lacking", {"model.engine=torch"}),
                            {.ranks = ranks, .program = program});
    EXPECT_EQ(ended.code, 2);
    EXPECT_THAT(ended.errors(),
                ElementsAre(HasSubstr("libkuaitrain_torch.so: cannot open shared object file")));
  }
  const Ended gram = run(training("ease", "gram"), {.ranks = 2, .program = program});
  EXPECT_EQ(gram.code, 2);
  EXPECT_THAT(gram.errors(), ElementsAre(HasSubstr("this run computes through libtorch")));
  const Ended trees = run(training("gbdt", "trees"), {.ranks = 2, .program = program});
  EXPECT_EQ(trees.code, 2);
  EXPECT_THAT(trees.errors(),
              ElementsAre(AllOf(HasSubstr("lib_lightgbm.so: cannot open shared object file"),
                                HasSubstr("launch/setup.sh fetches it"))));
  EXPECT_EQ(run(training("tiny", "without"), {.program = program}).code, 0);
}

TEST_F(Start, ALibraryThatOneRankLacksEndsAll) {
  const fs::path library = fs::path(KT_PROGRAM).parent_path() / "libkuaitrain_torch.so";
  copy_of_program("rank-0", library);
  copy_of_program("rank-1");
  write_file(
      path("of_rank"),
      fmt::format("#!/bin/sh\nexec {}-$OMPI_COMM_WORLD_RANK/kuaitrain \"$@\"\n", path("rank")));
  fs::permissions(path("of_rank"), fs::perms::owner_all);
  const Ended ended = run(training("tiny", "one-lacks", {"model.engine=torch"}),
                          {.ranks = 2, .program = path("of_rank")});
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.errors(), ElementsAre(AllOf(HasSubstr("libkuaitrain_torch.so: cannot open"),
                                                HasSubstr("on rank 1"))));
}

TEST_F(Start, ALibraryOfAnotherBuildIsRefused) {
  const std::string program = copy_of_program("mixed", KT_LIBRARY_OF_ANOTHER_BUILD);
  const Ended ended =
      run(training("tiny", "mixed-run", {"model.engine=torch"}), {.program = program});
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr("got that of commit another")));
}

// Those of Open MPI, one for all processes of a user that start alone: one that ends takes it from under one that starts.
TEST_F(Start, AProcessAloneNeedsNoSessionDirectory) {
  setenv("TMPDIR", "/proc/nowhere", 1);
  const Ended ended = run(training("additive_means", "no-session", {"checkpoint.best=none"}));
  unsetenv("TMPDIR");
  EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
}

}  // namespace
}  // namespace kt
