// The same bits on any number of ranks and threads: whole runs of the program, compared by result.json.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>

#include "tests/support/run_program.h"
#include "tests/trainer/program_outcome.h"

namespace kt {
namespace {

struct Case {
  const char* name;
  const char* dataset;  // replica or ratings
  const char* form;     // rows or ids, of the fused engine; torch: libtorch
  Arguments overrides;
  bool validates = true;  // reaches the end of an epoch
  bool is_torch() const { return std::string_view(form) == "torch"; }
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      {"daily_adam_256", "replica", "rows", {"train.epochs=1", "data.target.clip=5"}},
      {"daily_adam_256_ids", "replica", "ids", {"train.epochs=1", "data.target.clip=5"}},
      {"daily_torch_256", "replica", "torch", {"train.epochs=1", "data.target.clip=5"}},
      {"adamw_clipped_cosine_32",
       "replica",
       "rows",
       {"model.content=none", "train.global_batch=32", "train.max_steps=40",
        "train.optimizer.name=adamw", "train.weight_decay=0.01", "train.clip_norm=0.5",
        "train.schedule.name=cosine", "train.schedule.warmup_steps=10", "train.schedule.steps=100"},
       false},
      // A step has more rows than ids.
      {"daily_clipped_5000",
       "replica",
       "rows",
       {"train.global_batch=5000", "train.epochs=6", "train.clip_norm=0.5"}},
      {"daily_clipped_5000_ids",
       "replica",
       "ids",
       {"train.global_batch=5000", "train.epochs=6", "train.clip_norm=0.5"}},
      // Empty shards, and a user with half of the rows.
      {"skewed_sgd_32",
       "ratings",
       "rows",
       {"model.content=none", "train.global_batch=32", "train.epochs=1", "train.optimizer.name=sgd",
        "train.optimizer.momentum=0.9", "train.optimizer.lr=0.01"}},
      {"skewed_sgd_32_ids",
       "ratings",
       "ids",
       {"model.content=none", "train.global_batch=32", "train.epochs=1", "train.optimizer.name=sgd",
        "train.optimizer.momentum=0.9", "train.optimizer.lr=0.01"}},
      {"skewed_temporal_best_256",
       "ratings",
       "ids",
       {"model.content=none", "train.epochs=3", "data.validation.kind=temporal",
        "train.clip_norm=1", "train.schedule.name=linear", "train.schedule.warmup_steps=3",
        "checkpoint.best=mae", "evaluate.checkpoint=best"}},
  };
  return all;
}

class Bits : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-bits");
    make_replica(folder(), 16);
    write_ratings(folder());
    import_ratings(folder());
    std::filesystem::rename(folder() / "dataset", folder() / "replica");
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const std::filesystem::path& folder() { return shop_->path(); }

  /// The result of a run in a folder of its own.
  static nlohmann::json train(const Case& given, int ranks, const Arguments& more = {}) {
    static int runs = 0;
    const std::string dir = folder() / fmt::format("run-{}", ++runs);
    Arguments arguments{"train",
                        "--config",
                        KT_TINY_CONFIG,
                        "data.path=" + (folder() / given.dataset).string(),
                        "run.dir=" + dir,
                        "checkpoint.every_steps=0",
                        "log.every_steps=1000"};
    if (given.is_torch())
      arguments.emplace_back("model.engine=torch");
    else
      arguments.push_back(fmt::format("model.form={}", given.form));
    arguments.insert(arguments.end(), given.overrides.begin(), given.overrides.end());
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Ended ended = run_program(folder() / "work", arguments, {.ranks = ranks});
    EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
    return ended.code == 0 ? json_file(dir + "/result.json") : nlohmann::json();
  }
  /// What one process with one thread makes of a case, made once.
  static const nlohmann::json& alone(const Case& given) {
    static std::map<std::string, nlohmann::json> known;
    const auto found = known.find(given.name);
    return found != known.end() ? found->second
                                : known.emplace(given.name, train(given, 0)).first->second;
  }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> Bits::shop_;

TEST_F(Bits, TheRatingsAreSkewed) {
  const nlohmann::json manifest = json_file(folder() / "ratings" / "manifest.json");
  const auto& shards = manifest.at("shards");
  EXPECT_EQ(shards.size(), 16U);
  EXPECT_GE(std::count_if(shards.begin(), shards.end(),
                          [](const nlohmann::json& shard) { return shard.at("rows") == 0; }),
            4);
  EXPECT_NEAR(manifest.at("largest_shard_share"), 0.5, 1e-9);
}

TEST_F(Bits, EveryCaseLearnsAndIsEvaluated) {
  for (const Case& given : cases()) {
    SCOPED_TRACE(given.name);
    const nlohmann::json& result = alone(given);
    ASSERT_FALSE(result.is_null());
    EXPECT_EQ(result.at("weights_hash").get<std::string>().size(), 32U);
    const auto& model = result.at("config").at("model");
    EXPECT_EQ(model.at("engine"), given.is_torch() ? "torch" : "fused");
    EXPECT_EQ(model.at("form"), given.is_torch() ? "rows" : given.form);
    EXPECT_GT(result.at("updates").get<int>(), 20);
    EXPECT_GT(result.at("evaluation").at("metrics").size(), 20U);
    ASSERT_EQ(result.at("epochs").empty(), !given.validates);
    if (given.validates) {
      EXPECT_GT(result.at("epochs").back().at("validation").at("rows").get<int>(), 100);
      EXPECT_GT(result.at("epochs").back().at("train_loss").get<double>(), 0);
    }
  }
}

TEST_F(Bits, TheSameOnAnyNumberOfRanks) {
  for (const Case& given : cases())
    for (const int ranks : {1, 2, 3, 4, 8}) {
      if (given.is_torch() && ranks != 3) continue;
      // A world of one that mpirun started differs from one without it by its start alone.
      if (ranks == 1 && &given != &cases().front()) continue;
      const nlohmann::json result = train(given, ranks);
      ASSERT_FALSE(result.is_null());
      EXPECT_EQ(result.at("ranks"), ranks);
      EXPECT_EQ(outcome(result), outcome(alone(given))) << given.name << ", " << ranks << " ranks";
    }
}

TEST_F(Bits, TheSameOnTwoThreadsAndEverySimdLevel) {
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  for (const Case& given : cases())
    for (const int ranks : {0, 2}) {
      if (given.is_torch() && ranks == 0) continue;
      const char* simd = ranks == 2 && has_avx512 ? "avx512" : "avx2";
      const nlohmann::json result =
          train(given, ranks, {"parallel.threads=2", fmt::format("parallel.simd={}", simd)});
      ASSERT_FALSE(result.is_null());
      EXPECT_EQ(result.at("threads"), 2);
      EXPECT_EQ(result.at("config").at("parallel").at("simd"), simd);
      EXPECT_EQ(outcome(result), outcome(alone(given)))
          << given.name << ", " << ranks << " ranks, " << simd;
    }
}

// Other sums, so other bits; the same model.
TEST_F(Bits, EnginesAndFormsComeNear) {
  const nlohmann::json& torch = alone(cases()[2]);
  const double loss = torch.at("epochs").back().at("train_loss");
  const double error = torch.at("evaluation").at("metrics").at("mae");
  for (const size_t fused : {0, 1}) {
    const nlohmann::json& result = alone(cases()[fused]);
    EXPECT_NEAR(result.at("epochs").back().at("train_loss"), loss, 1e-4 * loss);
    EXPECT_NEAR(result.at("evaluation").at("metrics").at("mae"), error, 1e-3 * error);
  }
}

TEST_F(Bits, TheHashIsOfTheWeights) {
  const Case& given = cases()[0];
  const auto hash = [](const nlohmann::json& result) {
    return result.at("weights_hash").get<std::string>();
  };
  const std::string own = hash(alone(given));
  EXPECT_EQ(hash(train(given, 0)), own);
  EXPECT_NE(hash(train(given, 0, {"train.seed=2"})), own);
  EXPECT_NE(hash(train(given, 0, {"train.optimizer.lr=0.0010001"})), own);
  EXPECT_NE(hash(train(given, 0, {"train.global_batch=255"})), own);
}

TEST_F(Bits, FastReductionComesNear) {
  for (const size_t form : {0, 1}) {
    const Case& given = cases()[form];
    const double loss = alone(given).at("epochs").back().at("train_loss");
    const double error = alone(given).at("evaluation").at("metrics").at("mae");
    for (const int ranks : {1, 3}) {
      const nlohmann::json result = train(given, ranks, {"parallel.reduce=fast"});
      ASSERT_FALSE(result.is_null());
      EXPECT_EQ(result.at("reduce"), "fast");
      EXPECT_NEAR(result.at("epochs").back().at("train_loss"), loss, 1e-4 * loss);
      EXPECT_NEAR(result.at("evaluation").at("metrics").at("mae"), error, 1e-3 * error);
    }
  }
}

}  // namespace
}  // namespace kt
