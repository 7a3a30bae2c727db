// Every configuration of the project: the same bits on any number of ranks and threads and any width of lanes, interrupted
// or not, and from the stored run alone.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "tests/support/run_program.h"
#include "tests/trainer/program_outcome.h"

namespace kt {
namespace {

namespace fs = std::filesystem;

/// Files of configs/ but its sweeps, by their path there without the ending.
std::vector<std::string> configurations() {
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(KT_CONFIGS)) {
    const fs::path name = fs::relative(entry.path(), KT_CONFIGS).replace_extension();
    if (entry.path().extension() == ".yaml" && name != "ncf_gpu" && *name.begin() != "sweeps")
      names.push_back(name.string());
  }
  std::ranges::sort(names);
  return names;
}

class Systems : public ::testing::TestWithParam<std::string> {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-systems");
    make_replica(folder(), 16);
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const fs::path& folder() { return shop_->path(); }
  static fs::path work() { return folder() / "work"; }

  /// Two epochs of few steps, of a configuration into the folder `dir`.
  static Arguments arguments(const std::string& name, const std::string& dir,
                             const Arguments& more = {}) {
    Arguments all{"train",
                  "--config",
                  std::string(KT_CONFIGS) + "/" + name + ".yaml",
                  "data.path=" + (folder() / "dataset").string(),
                  "run.dir=" + (folder() / dir).string(),
                  "train.global_batch=3000",
                  "train.epochs=2",
                  "train.schedule.name=constant",
                  "checkpoint.every_steps=0",
                  "log.every_steps=1000"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  static nlohmann::json train(const Arguments& given, const std::string& dir, int ranks) {
    const Ended ended = run_program(work(), given, {.ranks = ranks});
    EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
    return ended.code == 0 ? json_file(folder() / dir / "result.json") : nlohmann::json();
  }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> Systems::shop_;

// Under the sanitizer a rank takes seconds to start.
#ifdef __SANITIZE_ADDRESS__
constexpr int kManyRanks = 0;
#else
constexpr int kManyRanks = 8;
#endif

TEST_P(Systems, HasTheSameBitsOnAnyRanksAndThreadsAndAfterAResume) {
  const std::string name = GetParam();
  std::string dir = name;
  std::ranges::replace(dir, '/', '-');
  const nlohmann::json alone = train(arguments(name, dir), dir, 0);
  ASSERT_FALSE(alone.is_null());
  EXPECT_GT(alone.at("updates").get<int>(), 0);
  EXPECT_GT(alone.at("evaluation").at("metrics").size(), 20U);
  // Those in folders are of the same systems.
  if (kManyRanks > 0 && name.find('/') == std::string::npos) {
    const nlohmann::json many = train(arguments(name, dir + "-many"), dir + "-many", kManyRanks);
    ASSERT_FALSE(many.is_null());
    EXPECT_EQ(outcome(many), outcome(alone));
  }

  const std::string halted = dir + "-halted";
  const int half = (alone.at("steps").get<int>() + 1) / 2;
  train(arguments(name, halted, {fmt::format("train.max_steps={}", half)}), halted, 3);
  const nlohmann::json resumed =
      train(arguments(name, halted, {"parallel.threads=2", "parallel.simd=avx2"}), halted, 2);
  ASSERT_FALSE(resumed.is_null());
  EXPECT_EQ(outcome(resumed), outcome(alone));

  const Ended evaluated =
      run_program(work(), {"evaluate", (folder() / dir).string(), "--json"}, {.ranks = 2});
  ASSERT_EQ(evaluated.code, 0) << evaluated.out << evaluated.err;
  EXPECT_EQ(nlohmann::json::parse(evaluated.out).at("metrics"),
            alone.at("evaluation").at("metrics"));
  const Ended recommended = run_program(
      work(), {"recommend", (folder() / dir).string(), "--user", "3", "--top", "3", "--json"});
  ASSERT_EQ(recommended.code, 0) << recommended.out << recommended.err;
  for (const char* done : {"", "-many", "-halted"}) fs::remove_all(folder() / (dir + done));
}

INSTANTIATE_TEST_SUITE_P(Configs, Systems, ::testing::ValuesIn(configurations()),
                         [](const auto& given) {
                           std::string name = given.param;
                           std::ranges::replace(name, '/', '_');
                           return name;
                         });

TEST(Configurations, AreMany) { EXPECT_GE(configurations().size(), 35U); }

}  // namespace
}  // namespace kt
