// `kuaitrain plan` as a user starts it.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/support/run_program.h"

namespace kt {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class ProgramPlan : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-plan");
    write_ratings(shop_->path());
    import_ratings(shop_->path());
  }
  static void TearDownTestSuite() { shop_.reset(); }

  static Ended plan(Arguments arguments) {
    arguments.insert(arguments.begin(), "plan");
    return run_program(shop_->path(), arguments);
  }
  static json document(Arguments arguments) {
    arguments.emplace_back("--json");
    const Ended ended = plan(arguments);
    EXPECT_EQ(ended.code, 0) << ended.err;
    return json::parse(ended.out);
  }
  static void expect_refused(const Arguments& arguments, const std::string& message) {
    const Ended ended = plan(arguments);
    EXPECT_EQ(ended.code, 2) << ended.out;
    EXPECT_THAT(ended.err, HasSubstr(message));
    EXPECT_EQ(ended.out, "");
  }

  /// A configuration that says no more than this.
  static std::string of_system(const std::string& name) {
    std::ofstream(shop_->path() / (name + ".yaml"))
        << "model: {name: " << name << "}\ndata: {validation: {fraction: 0}}\n"
        << "checkpoint: {best: none}\n";
    return name + ".yaml";
  }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> ProgramPlan::shop_;

std::set<std::string> keys(const json& object) {
  std::set<std::string> names;
  for (const auto& [name, value] : object.items()) names.insert(name);
  return names;
}

TEST_F(ProgramPlan, AssumesKuaiRecWithoutADataSet) {
  const json got = document({"--ranks", "3", "data.validation.fraction=0", "checkpoint.best=none"});
  EXPECT_EQ(got["dataset"], (json{{"path", ""},
                                  {"assumed", true},
                                  {"rows", 11562802},
                                  {"rows_train", 11562802},
                                  {"users", 7176},
                                  {"items", 10728},
                                  {"shards", 64},
                                  {"small_pairs", 4676570}}));
  EXPECT_EQ(got["parameters"]["count"], 577089);
  EXPECT_EQ(got["step"]["steps_per_epoch"], 2823);
  EXPECT_EQ(got["ranks"], 3);
  EXPECT_EQ(got["nodes"], 1);
  EXPECT_EQ(got["device"]["name"], "cpu");
  EXPECT_EQ(got["config"]["train"]["global_batch"], 4096);
  EXPECT_THAT(plan({"--ranks", "3"}).out, HasSubstr("the counts of KuaiRec are assumed"));
}

TEST_F(ProgramPlan, TakesTheCountsOfADataSet) {
  const json manifest = json_file(shop_->path() / "ratings" / "manifest.json");
  const json got =
      document({KT_TINY_CONFIG, "--ranks", "5", "data.path=ratings", "model.content=none"});
  EXPECT_EQ(got["dataset"]["assumed"], false);
  EXPECT_EQ(got["dataset"]["path"], "ratings");
  EXPECT_EQ(got["dataset"]["rows"], manifest["train_rows"]);
  EXPECT_EQ(got["dataset"]["users"], manifest["users"]);
  EXPECT_EQ(got["dataset"]["shards"], 16);
  EXPECT_EQ(got["dataset"]["small_pairs"], manifest["test_rows"]);
  EXPECT_EQ(got["largest_shard"]["share"], manifest["largest_shard_share"]);
  ASSERT_EQ(got["placement"].size(), 5u);
  for (int r = 0; r < 5; ++r) {
    const int begin = 16 * r / 5, end = 16 * (r + 1) / 5;
    int64_t rows = 0, users = 0;
    for (int j = begin; j < end; ++j) {
      rows += manifest["shards"][j]["rows"].get<int64_t>();
      users += manifest["shards"][j]["users"].get<int64_t>();
    }
    EXPECT_EQ(got["placement"][r]["shards"], (json{begin, end}));
    EXPECT_EQ(got["placement"][r]["rows"], rows);
    EXPECT_EQ(got["placement"][r]["users"], users);
  }
}

TEST_F(ProgramPlan, ItsDocumentHasTheseFields) {
  const json got = document({"--ranks", "2", "--device", "h100"});
  EXPECT_THAT(keys(got),
              ElementsAre("config", "dataset", "device", "largest_shard", "memory", "nodes",
                          "parameters", "placement", "ranks", "scaling", "speed_up_bound", "step"));
  EXPECT_THAT(keys(got["memory"]),
              ElementsAre("available_bytes", "fits", "needed_bytes", "of", "ranks_needed"));
  EXPECT_THAT(keys(got["step"]),
              ElementsAre("collectives", "communication_s", "compute_s", "epoch_s", "estimate",
                          "exposed_share", "flops", "kernels", "overlap", "oversubscription",
                          "prepare_epoch_s", "rounds", "samples", "samples_per_second", "seconds",
                          "speed_up", "steps_per_epoch", "waiting_s", "waits"));
  EXPECT_THAT(keys(got["step"]["kernels"][0]),
              ElementsAre("bytes", "launches", "name", "operations", "seconds"));
  EXPECT_THAT(keys(got["step"]["collectives"][0]),
              ElementsAre("of", "operation", "ranks", "rounds", "seconds", "times"));
  EXPECT_THAT(keys(got["step"]["collectives"][0]["ranks"][1]),
              ElementsAre("messages", "read_bytes", "received_bytes", "remote_messages",
                          "remote_received_bytes", "remote_sent_bytes", "sent_bytes"));
  EXPECT_THAT(
      keys(got["placement"][0]),
      ElementsAre("compute_parts_s", "compute_s", "memory", "node", "parameter_rows",
                  "peak_memory_bytes", "rank", "rows", "samples_per_step", "shards", "users"));
  EXPECT_EQ(got["device"]["memory_bytes"], 80000000000);
  EXPECT_THAT(got["step"]["estimate"].get<std::string>(), HasSubstr("a prototype's kernels"));
}

TEST_F(ProgramPlan, OnDevicesTheEngineIsThatOfTheRun) {
  const auto planned = [](const Arguments& more) {
    Arguments arguments{"--ranks", "1", "--device", "h200"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return document(arguments);
  };
  const json fused = planned({});
  EXPECT_EQ(fused["config"]["model"]["engine"], "fused");
  EXPECT_EQ(fused["config"]["model"]["form"], "ids");
  double seconds = 0;
  for (const json& kernel : fused["step"]["kernels"]) seconds += kernel["seconds"].get<double>();
  EXPECT_DOUBLE_EQ(seconds, fused["step"]["seconds"].get<double>());
  const double epoch = fused["step"]["epoch_s"].get<double>();
  EXPECT_NEAR(epoch,
              fused["step"]["prepare_epoch_s"].get<double>() +
                  fused["step"]["steps_per_epoch"].get<double>() * seconds,
              1e-9);
  EXPECT_NEAR(fused["step"]["samples_per_second"].get<double>(),
              fused["dataset"]["rows_train"].get<double>() / epoch, 1);
  // A reduced precision is libtorch's.
  const json reduced = planned({"parallel.precision=bf16", "parallel.reduce=fast"});
  EXPECT_EQ(reduced["config"]["model"]["engine"], "torch");
  EXPECT_FALSE(reduced["step"].contains("kernels"));
  EXPECT_GT(reduced["placement"][0]["compute_parts_s"]["kernel launches"], 0);
  EXPECT_THAT(plan({"--ranks", "1", "--device", "h200"}).out, HasSubstr("sums of part gradients"));
}

TEST_F(ProgramPlan, OfMeansIsOfTheirOneStep) {
  const json got = document({of_system("additive_means"), "--ranks", "2", "model.sweeps=7"});
  EXPECT_THAT(keys(got["step"]),
              ElementsAre("collectives", "communication_s", "compute_s", "estimate",
                          "exposed_share", "overlap", "oversubscription", "rounds",
                          "samples_per_second", "seconds", "speed_up", "waiting_s", "waits"));
  EXPECT_FALSE(got["placement"][0].contains("samples_per_step"));
  EXPECT_FALSE(got["placement"][0]["memory"].contains("columns"));
  EXPECT_GT(got["placement"][0]["memory"]["rows to their videos"]["bytes"], 0);
  EXPECT_EQ(got["parameters"]["count"], 7176 + 10728 + 1);
  int64_t most = 0;
  for (const json& collective : got["step"]["collectives"])
    most = std::max(most, collective["times"].get<int64_t>());
  EXPECT_EQ(most, 8);
  EXPECT_GT(got["step"]["seconds"], 0);

  for (const char* name :
       {"global_mean", "user_mean", "video_mean", "additive_means", "popularity"}) {
    const Ended ended = plan({of_system(name), "--ranks", "4"});
    EXPECT_EQ(ended.code, 0) << ended.err;
    EXPECT_THAT(ended.out, HasSubstr(std::string("model ") + name + " in one step"));
    EXPECT_THAT(ended.out, HasSubstr("the one step over all 11,562,802 rows"));
    for (const char* word : {"epoch", "FLOP", "activations"})
      EXPECT_THAT(ended.out, Not(HasSubstr(word))) << name;
    std::istringstream lines(ended.out);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80) << line;
  }
}

TEST_F(ProgramPlan, KnowsTheCodesOfKuaiRec) {
  // Codes of 26 user columns, three levels of categories, 50 ranges of durations; a missing value has one each.
  const json got = document({of_system("two_tower"), "--ranks", "2", "model.user_columns=codes",
                             "model.categories=true", "model.duration=true"});
  std::map<std::string, int64_t> rows;
  for (const json& array : got["parameters"]["arrays"])
    rows[array["name"].get<std::string>()] = array["rows"].get<int64_t>();
  const int64_t feats = 2 + 8 + 30 + 1076 + 12 + 10 + 3 + 47 + 340 + 7 + 5 + 3 + 6 * 2;
  EXPECT_EQ(rows["user_codes"], 26 + 4 + 3 * 2 + 8 + 7 + 7 + 7 + feats);
  EXPECT_EQ(rows["video_codes"], 39 + 138 + 220 + 51);
}

TEST_F(ProgramPlan, SaysWhetherItFits) {
  const json fits = document({"--ranks", "2", "--memory", "100"});
  EXPECT_EQ(fits["memory"]["fits"], true);
  EXPECT_EQ(fits["memory"]["ranks_needed"], 2);
  EXPECT_EQ(fits["memory"]["available_bytes"], 100000000000);

  const json tight = document({"--ranks", "1", "--memory", "0.27"});
  EXPECT_EQ(tight["memory"]["fits"], false);
  const int64_t needed = tight["memory"]["ranks_needed"];
  EXPECT_GT(needed, 1);
  EXPECT_EQ(document({"--ranks", std::to_string(needed), "--nodes", std::to_string(needed),
                      "--memory", "0.27"})["memory"]["fits"],
            true);
  const Ended ended = plan({"--ranks", "1", "--memory", "0.27"});
  EXPECT_EQ(ended.code, 0);
  EXPECT_THAT(ended.err, HasSubstr("does not fit"));
  EXPECT_THAT(ended.err, HasSubstr("needs at least " + std::to_string(needed) + " ranks"));
  EXPECT_EQ(document({"--ranks", "1", "--memory", "0.01"})["memory"]["ranks_needed"], json());
}

TEST_F(ProgramPlan, SaysWhereScalingEnds) {
  const Arguments arguments{"--ranks",  "2",    "--cores", "2",
                            "--memory", "8000", "--rows",  "100000000"};
  const json got = document(arguments);
  const json& points = got["scaling"]["points"];
  ASSERT_EQ(points.size(), 7u);
  EXPECT_THAT(keys(points[0]),
              ElementsAre("communication_s", "compute_s", "incoming_bytes", "longest", "longest_s",
                          "nodes", "peak_memory_bytes", "ranks", "rounds", "waiting_s", "waits"));
  EXPECT_EQ(points[1]["waits"], got["step"]["waits"]);
  EXPECT_EQ(got["step"]["waits"], 3);
  EXPECT_EQ(points[2]["waits"], 5);  // two nodes: by messages and in place
  EXPECT_EQ(points[6]["nodes"], 32);
  const int64_t end = got["scaling"]["ends_at_ranks"];
  for (const json& point : points) {
    const bool over = point["communication_s"] >= point["compute_s"];
    EXPECT_EQ(over, point["ranks"] >= end) << point;
  }
  const std::string text = plan(arguments).out;
  EXPECT_THAT(text, HasSubstr("3 waits a step"));
  EXPECT_THAT(text, HasSubstr(fmt::format("ends at {} ranks: ", end)));
  EXPECT_THAT(text, HasSubstr("counts as given, else KuaiRec's"));
}

TEST_F(ProgramPlan, TakesTablesOfAnySize) {
  const auto at = [](const char* ranks, const char* nodes) {
    return document({"--ranks", ranks, "--nodes", nodes, "--cores", "8", "--memory", "4000",
                     "--shards", "1024", "--items", "1000000000", "--rows", "10000000000",
                     "model.content=none"});
  };
  const json few = at("64", "8"), many = at("1024", "128");
  EXPECT_EQ(many["dataset"]["items"], 1000000000);
  EXPECT_EQ(many["dataset"]["shards"], 1024);
  const auto held = [](const json& got) {
    return got["placement"][0]["memory"]["optimizer state"]["bytes"].get<double>();
  };
  EXPECT_NEAR(held(few) / held(many), 16, .1);  // rows of the table are at one rank each
  EXPECT_EQ(many["scaling"]["points"].size(), 11u);
}

TEST_F(ProgramPlan, IsReadableInEightyColumns) {
  for (const Arguments& arguments :
       {Arguments{"--ranks", "64", "--device", "b200"},
        Arguments{"--ranks", "2", "--device", "a100", "model.engine=torch"},
        Arguments{"--ranks", "17", "--cores", "64", "--memory", "500", "parallel.reduce=fast",
                  "train.clip_norm=1"},
        Arguments{"--ranks", "1024", "--nodes", "128", "--shards", "1024", "--items", "100000000",
                  "model.content=none", "--memory", "9999"},
        Arguments{"--ranks", "1"}}) {
    const Ended ended = plan(arguments);
    EXPECT_EQ(ended.code, 0);
    std::istringstream lines(ended.out);
    int count = 0;
    for (std::string line; std::getline(lines, line); ++count) EXPECT_LE(line.size(), 80) << line;
    EXPECT_GT(count, 30);
    EXPECT_THAT(ended.out, HasSubstr("exposed communication"));
  }
}

TEST_F(ProgramPlan, HelpsAndKeepsQuiet) {
  const Ended help = plan({"--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.out, HasSubstr("Example"));
  EXPECT_THAT(help.out, HasSubstr("cpu, a100, a100-40gb, h100, h200, b200, l4, l40s"));
  const Ended quiet = plan({"--ranks", "8", "--device", "h100", "--quiet"});
  EXPECT_EQ(quiet.code, 0);
  EXPECT_EQ(quiet.out + quiet.err, "");
}

TEST_F(ProgramPlan, RefusesWhatItCannotPlan) {
  expect_refused({"--ranks", "2", "--device", "abacus"},
                 "--device abacus: no such device, expected cpu, a100,");
  expect_refused({"--ranks", "65"}, "65 ranks, but the data set has 64 shards");
  expect_refused({"--ranks", "17", "data.path=ratings", "model.content=none"},
                 "17 ranks, but the data set has 16 shards");
  expect_refused({"--ranks", "2", "data.path=ratings"},
                 "ratings: model.content is daily, but the data set has no");
  expect_refused({"--ranks", "2", "data.path=nowhere"}, "nowhere: no such folder");
  expect_refused({"--ranks", "2", "train.batch=3"}, "train.batch");
  expect_refused({"a.yaml", "b.yaml", "--ranks", "2"}, "two configurations, a.yaml and b.yaml");
  expect_refused({of_system("additive_means"), "--ranks", "2", "--device", "h100"},
                 "model.name: got additive_means, which has no form on GPUs: it is found in one "
                 "step; set --device cpu");
  expect_refused({of_system("dlrm"), "--ranks", "2", "--device", "h100"},
                 "model.name: got dlrm, which has no form on GPUs: its videos share embeddings");
  expect_refused({of_system("dlrm"), "--ranks", "2", "--device", "h100", "model.penalty=0.1",
                  "model.video_codes=false"},
                 "model.name: got dlrm, which has no form on GPUs: it has a penalty on embeddings "
                 "of codes; set --device cpu");
  std::ofstream(shop_->path() / "bce.yaml") << "model: {name: ncf, loss: bce}\n";
  expect_refused({"bce.yaml", "--ranks", "2", "--device", "h100", "model.engine=torch"},
                 "model.name: got ncf, which has no form on GPUs by libtorch: its loss is not the "
                 "squared error; set --device cpu");
  expect_refused({"--ranks", "2", "--device", "l4", "--memory", "3"},
                 "--memory, --cores: describe a node of cpus, but --device is l4");
  for (const char* name : {"als", "ease", "svd", "autoencoder", "cosine", "gbdt", "lightgcn"})
    expect_refused(
        {of_system(name), "--ranks", "2"},
        fmt::format("model.name: got {}, whose steps are over all rows, users or videos", name));
  expect_refused({"--ranks", "2", "--shards", "100"},
                 "--shards 100: expected a power of two, as an import makes them; give 64 or 128");
  expect_refused({"--ranks", "2", "--users", "3", "data.path=ratings", "model.content=none"},
                 "describe a data set that is not there, but data.path is ratings");
  expect_refused({}, "--ranks is required");
  expect_refused({"--ranks", "0"}, "--ranks");
  const Ended two = run_program(shop_->path(), {"plan", "--ranks", "2"}, {.ranks = 2});
  EXPECT_EQ(two.code, 2);
  EXPECT_THAT(two.err, HasSubstr("`plan` runs as one process"));
}

}  // namespace
}  // namespace kt
