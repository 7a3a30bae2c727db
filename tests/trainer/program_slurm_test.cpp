// Batch scripts: `kuaitrain slurm` as a user starts it, what the scripts do with how a run ends, and runs inside of jobs.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

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

namespace fs = std::filesystem;

/// Variables of the environment while it lives.
class Environment {
 public:
  Environment(std::initializer_list<std::pair<std::string, std::string>> set) {
    for (const auto& [name, value] : set) {
      const char* before = std::getenv(name.c_str());
      before_.emplace_back(name, before ? std::optional<std::string>(before) : std::nullopt);
      ::setenv(name.c_str(), value.c_str(), 1);
    }
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
  ~Environment() {
    for (const auto& [name, value] : before_)
      value ? ::setenv(name.c_str(), value->c_str(), 1) : ::unsetenv(name.c_str());
  }

 private:
  std::vector<std::pair<std::string, std::optional<std::string>>> before_;
};

class ProgramSlurm : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-slurm");
    write_ratings(shop_->path());
    import_ratings(shop_->path());
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }
  static fs::path work() { return folder() / "work"; }
  static fs::path out() { return work() / "job.sbatch"; }

  static void script(const std::string& name, const std::string& text) {
    write_file(folder() / "bin" / name, "#!/bin/bash\n" + text);
    fs::permissions(folder() / "bin" / name, fs::perms::owner_all);
  }
  static std::string path_first(const fs::path& bin) {
    return fmt::format("{}:{}", bin.string(), std::getenv("PATH"));
  }
  static Arguments slurm(const Arguments& more) {
    Arguments all{
        "slurm",      KT_TINY_CONFIG,       "--out",
        "job.sbatch", "model.content=none", "data.path=" + (folder() / "ratings").string()};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  /// Writes a script where sbatch says `words` and ends with `code`.
  static Ended with_sbatch(const std::string& words, int code, const Arguments& more) {
    script("sbatch", fmt::format("[ \"$1\" = --test-only ] && [ -e \"$2\" ] || exit 99\n"
                                 "echo '{}' >&2\nexit {}\n",
                                 words, code));
    const Environment environment{{"PATH", path_first(folder() / "bin")}};
    return run_program(work(), slurm(more));
  }
  void SetUp() override { fs::remove_all(work()); }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> ProgramSlurm::shop_;

TEST_F(ProgramSlurm, WritesAScriptThatSbatchTook) {
  const Ended ended =
      with_sbatch("sbatch: Job 7 to start at noon", 0,
                  {"--nodes", "2", "--ranks-per-node", "4", "--threads", "3", "--time", "02:00:00",
                   "--partition", "long", "--account", "us", "run.dir=runs/it's"});
  ASSERT_EQ(ended.code, 0) << ended.err;
  EXPECT_THAT(ended.out, AllOf(HasSubstr("Job 7 to start at noon"),
                               HasSubstr("job.sbatch: 2 nodes of 4 ranks, ")));
  const std::string text = file_text(out());
  for (const char* line :
       {"#SBATCH --job-name=tiny\n", "#SBATCH --nodes=2\n", "#SBATCH --ntasks-per-node=4\n",
        "#SBATCH --cpus-per-task=3\n", "#SBATCH --time=02:00:00\n",
        "\n#SBATCH --mem=", "\n#SBATCH --partition=long\n", "\n#SBATCH --account=us\n",
        "##SBATCH --gpus-per-node=", "#SBATCH --signal=B:USR2@120\n", "#SBATCH --requeue\n",
        "#SBATCH --open-mode=append\n", "launcher='mpirun --bind-to none'\n",
        "'run.dir=runs/it'\\''s'", "parallel.threads=3)\n"})
    EXPECT_THAT(text, HasSubstr(line));
  EXPECT_THAT(text, HasSubstr("program=" + fs::canonical(KT_PROGRAM).string() + "\n"));
  EXPECT_THAT(names_in(work()), ElementsAre("job.sbatch"));
}

TEST_F(ProgramSlurm, SrunAndJson) {
  Arguments more{"--nodes", "1", "--launcher", "srun", "--json"};
  const Ended ended = with_sbatch("fine", 0, more);
  ASSERT_EQ(ended.code, 0) << ended.err;
  const auto document = nlohmann::json::parse(ended.out);
  EXPECT_EQ(document.at("ranks"), 1);
  EXPECT_EQ(document.at("checked_by_sbatch"), true);
  EXPECT_GT(document.at("memory_mb_per_node"), 500);
  EXPECT_THAT(file_text(out()),
              HasSubstr("launcher='srun --mpi=pmix --kill-on-bad-exit --cpus-per-task=1'\n"));
}

TEST_F(ProgramSlurm, WhatSbatchRefusesIsNotWritten) {
  const Ended ended =
      with_sbatch("sbatch: error: invalid partition specified: nowhere", 1, {"--nodes", "2"});
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.errors(),
              ElementsAre(HasSubstr("sbatch refuses the job: sbatch: error: invalid "
                                    "partition specified: nowhere; change")));
  EXPECT_THAT(names_in(work()), IsEmpty());
}

TEST_F(ProgramSlurm, WithoutAControllerItWarnsAndWrites) {
  const Ended ended =
      with_sbatch("sbatch: error: Unable to contact slurm controller", 1, {"--nodes", "2"});
  EXPECT_EQ(ended.code, 0);
  EXPECT_THAT(ended.out + ended.err, HasSubstr("warning: sbatch has not checked the job: sbatch: "
                                               "error: Unable to contact slurm controller"));
  EXPECT_TRUE(fs::exists(out()));
}

TEST_F(ProgramSlurm, ItsOwnScriptIsReplacedAndNoOther) {
  EXPECT_EQ(with_sbatch("fine", 0, {"--nodes", "2"}).code, 0);
  EXPECT_EQ(with_sbatch("fine", 0, {"--nodes", "3"}).code, 0);
  EXPECT_THAT(file_text(out()), HasSubstr("--nodes=3\n"));
  write_file(out(), "#!/bin/bash\necho mine\n");
  const Ended ended = with_sbatch("fine", 0, {"--nodes", "2"});
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(
      ended.errors(),
      ElementsAre(HasSubstr("--out: job.sbatch exists and was not written by this command")));
  EXPECT_EQ(file_text(out()), "#!/bin/bash\necho mine\n");
}

TEST_F(ProgramSlurm, ASystemWithoutAPlanGetsTheSitesMemory) {
  const Ended ended = with_sbatch(
      "fine", 0,
      {"--nodes", "1", "model.name=ease", "data.validation.fraction=0", "checkpoint.best=none"});
  EXPECT_EQ(ended.code, 2);  // model.content is no option of it
  Arguments arguments{"slurm",           KT_TINY_CONFIG,
                      "--out",           "job.sbatch",
                      "--nodes",         "1",
                      "model.name=ease", "data.path=" + (folder() / "ratings").string()};
  write_file(work() / "ease.yaml",
             "model: {name: ease}\ncheckpoint: {best: none}\n"
             "data: {validation: {fraction: 0}}\n");
  arguments[1] = "ease.yaml";
  const Ended written = run_program(work(), arguments);
  EXPECT_EQ(written.code, 0) << written.err;
  EXPECT_THAT(written.out, HasSubstr("memory: the site's default, for ease has no plan"));
  EXPECT_THAT(file_text(out()), HasSubstr("##SBATCH --mem="));
}

TEST_F(ProgramSlurm, WhatCannotWorkIsRefused) {
  const std::pair<Arguments, const char*> cases[] = {
      {{"--nodes", "2", "--time", "00:02:00"},
       "--time: got 00:02:00, but the run is asked to save 120 s"},
      {{"--nodes", "2", "--time", "90"}, "--time: got 90, expected [D-]HH:MM:SS"},
      {{"--nodes", "2", "--gpus-per-node", "2", "--ranks-per-node", "3"},
       "--ranks-per-node: got 3, but a node gives 2 GPUs"},
      {{"--nodes", "5", "--ranks-per-node", "4"}, "20 ranks, but the data set has 16 shards"},
      {{"--nodes", "2", "--partition", "a b"}, "--partition: got a b, expected a name"},
      {{"--nodes", "2", "--launcher", "aprun"}, "aprun"},
      {{"--nodes", "0"}, "expected a whole number >= 1"},
      {{"--nodes", "2", "train.epoch=3"}, "train.epochs"},
      {{"--nodes", "2", "parallel.ranks=3"},
       "parallel.ranks: got 3, but the run is to start on 2"}};
  for (const auto& [arguments, message] : cases) {
    const Ended ended = with_sbatch("fine", 0, arguments);
    EXPECT_EQ(ended.code, 2) << message;
    EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr(message)));
    EXPECT_THAT(names_in(work()), IsEmpty());
  }
}

// --- slurm/*.sbatch, with a program and a scontrol that play their parts

class BatchScripts : public ProgramSlurm, public ::testing::WithParamInterface<const char*> {
 protected:
  static fs::path shipped() { return fs::path(KT_SOURCE_DIR) / "slurm" / GetParam(); }
  /// The script with a program that does `play`. Its words, and those of scontrol, are in `said`.
  static void prepare(const std::string& play) {
    fs::remove_all(work());
    script("scontrol", "echo \"scontrol $*\" >>said\n");
    script("program", "echo \"program $*\" >>said\n" + play);
    std::string text = file_text(shipped());
    const size_t at = text.find("program=build/release/kuaitrain");
    ASSERT_NE(at, text.npos);
    text.replace(at, std::string("program=build/release/kuaitrain").size(),
                 "program=" + (folder() / "bin" / "program").string());
    write_file(work() / "job", text);
  }
  static std::unique_ptr<Program> start(const std::string& restarts) {
    const Environment environment{{"PATH", path_first(folder() / "bin")},
                                  {"SLURM_NTASKS", "4"},
                                  {"SLURM_JOB_ID", "17"},
                                  {"SLURM_RESTART_COUNT", restarts}};
    return std::make_unique<Program>(work(), Arguments{"job"}, Launch{.program = "/bin/bash"});
  }
  static std::string said() { return file_text(work() / "said"); }
};
INSTANTIATE_TEST_SUITE_P(All, BatchScripts, ::testing::Values("train.sbatch", "sweep.sbatch"));

TEST_P(BatchScripts, OnlyAPeersLossIsTakenUpUnasked) {
  for (const int code : {0, 2, 70, 75, 85, 137}) {
    prepare(fmt::format("exit {}\n", code));
    const Ended ended = start("0")->wait();
    const bool again = code == 75 || code == 137;
    EXPECT_EQ(ended.code, again ? 0 : code) << ended.out << ended.err;
    EXPECT_EQ(said().find("scontrol requeue 17\n") != std::string::npos, again) << said();
  }
}

TEST_P(BatchScripts, AskedToSaveItIsTakenUp) {
  prepare("trap 'kill $!; exit 85' USR2; tail -f /dev/null & : >ready; wait\n");
  const auto job = start("0");
  job->wait_until([&] { return fs::exists(work() / "ready"); });
  job->signal(SIGUSR2);
  EXPECT_EQ(job->wait().code, 0);
  EXPECT_THAT(said(), HasSubstr("scontrol requeue 17\n"));
}

// scancel, too, sends SIGTERM.
TEST_P(BatchScripts, EndedByTheSchedulerItSavesAndIsNotTakenUp) {
  for (const int code : {75, 85}) {
    prepare(
        fmt::format("trap 'kill $!; exit {}' USR2; tail -f /dev/null & : >ready; wait\n", code));
    const auto job = start("0");
    job->wait_until([&] { return fs::exists(work() / "ready"); });
    job->signal(SIGTERM);
    EXPECT_EQ(job->wait().code, code);
    EXPECT_THAT(said(), Not(HasSubstr("scontrol")));
  }
}

TEST_P(BatchScripts, WhatCompletedThoughAskedToSaveIsDone) {
  prepare("trap 'kill $!; exit 0' USR2; tail -f /dev/null & : >ready; wait\n");
  const auto job = start("0");
  job->wait_until([&] { return fs::exists(work() / "ready"); });
  job->signal(SIGUSR2);
  EXPECT_EQ(job->wait().code, 0);
  EXPECT_THAT(said(), Not(HasSubstr("scontrol")));
}

TEST_P(BatchScripts, ThereIsALimit) {
  prepare("exit 75\n");
  const Ended ended = start("20")->wait();
  EXPECT_EQ(ended.code, 75);
  EXPECT_THAT(ended.out, HasSubstr("ended with 75 after 20 times; submit the job again"));
  EXPECT_THAT(said(), Not(HasSubstr("scontrol")));
}

TEST(BatchScriptFiles, EndAlike) {
  const auto end_of = [](const char* name) {
    const std::string text = file_text(fs::path(KT_SOURCE_DIR) / "slurm" / name);
    return text.substr(text.find("\n# --- From here on"));
  };
  EXPECT_EQ(end_of("train.sbatch"), end_of("sweep.sbatch"));
}

// --- Guards

class InAJob : public ProgramSlurm {
 protected:
  static Arguments training(const char* name, const Arguments& more = {}) {
    Arguments all{"--config",
                  KT_TINY_CONFIG,
                  "model.content=none",
                  "train.max_steps=2",
                  "data.path=" + (folder() / "ratings").string(),
                  "run.dir=" + (folder() / name).string()};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

TEST_F(InAJob, OneProcessOfSeveralTasksIsRefusedUnlessMeant) {
  const Environment environment{{"SLURM_NTASKS", "4"}};
  Ended ended = run_program(work(), training("alone"));
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.errors(),
              ElementsAre(HasSubstr("the SLURM job has 4 tasks, but this is one process")));
  EXPECT_FALSE(fs::exists(folder() / "alone"));
  EXPECT_EQ(run_program(work(), training("alone", {"parallel.ranks=1"})).code, 0);
  const Arguments evaluate{"evaluate", (folder() / "alone").string()};
  ended = run_program(work(), evaluate);
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.errors(), ElementsAre(HasSubstr("the SLURM job has 4 tasks")));
  EXPECT_EQ(run_program(work(), evaluate, {.ranks = 2}).code, 0);
}

TEST_F(InAJob, AnotherNumberOfRanksThanGivenIsRefusedOnce) {
  const Ended ended = run_program(work(), training("three", {"parallel.ranks=3"}), {.ranks = 2});
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.errors(),
              ElementsAre(HasSubstr("parallel.ranks: got 3, but the run was started on 2 ranks")));
  EXPECT_FALSE(fs::exists(folder() / "three"));
}

TEST_F(InAJob, ANumberOfRanksIsNotOfARunsIdentity) {
  EXPECT_EQ(run_program(work(), training("two", {"parallel.ranks=2"}), {.ranks = 2}).code, 0);
  EXPECT_EQ(run_program(work(), training("two", {"train.max_steps=3"})).code, 0);
}

TEST_F(InAJob, OfTasksWithoutPmiTheFirstAloneSpeaks) {
  for (const char* task : {"0", "3"}) {
    const Environment environment(
        {{"SLURM_PROCID", task}, {"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_NTASKS", "4"}});
    const Ended ended = run_program(work(), training("step"));
    EXPECT_EQ(ended.code, 2);
    EXPECT_EQ(ended.errors().size(), task == std::string("0") ? 1 : 0) << ended.out << ended.err;
  }
}

}  // namespace
}  // namespace kt
