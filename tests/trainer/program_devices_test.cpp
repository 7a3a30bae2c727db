// Whole runs over the stand-ins of CUDA and NCCL, against the program as it is built for CPUs.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "tests/support/run_program.h"
#include "tests/trainer/program_outcome.h"

namespace kt {
namespace {

using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Devices : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shop_ = std::make_unique<Workshop>("program-devices");
    make_replica(folder(), 16);
    write_ratings(folder());
    import_ratings(folder());
  }
  static void TearDownTestSuite() { shop_.reset(); }
  static const std::filesystem::path& folder() { return shop_->path(); }

  enum class On { kHost, kDevices };
  static Ended start(On on, int ranks, const std::string& run, const Arguments& more,
                     const std::string& config = KT_TINY_CONFIG) {
    Arguments arguments{"train",
                        "--config",
                        config,
                        "run.dir=" + (folder() / run).string(),
                        "checkpoint.every_steps=0",
                        "log.every_steps=7"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program(folder() / "work", arguments,
                       {.ranks = ranks, .program = on == On::kDevices ? KT_STAND_IN_PROGRAM : ""});
  }
  static nlohmann::json train(On on, int ranks, const Arguments& more, std::string* log = nullptr,
                              const std::string& config = KT_TINY_CONFIG) {
    static int runs = 0;
    const std::string run = fmt::format("run-{}", ++runs);
    const Ended ended = start(on, ranks, run, more, config);
    EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
    if (log) *log = ended.out;
    return ended.code == 0 ? json_file(folder() / run / "result.json") : nlohmann::json();
  }
  /// Another command, and what it says.
  static Ended ask(On on, int ranks, const Arguments& arguments) {
    return run_program(folder() / "work", arguments,
                       {.ranks = ranks, .program = on == On::kDevices ? KT_STAND_IN_PROGRAM : ""});
  }
  static std::string path(const std::string& name) { return (folder() / name).string(); }
  /// Stops after `steps` on one backend and goes on by the other.
  static void go_on_elsewhere(const std::string& name, int steps, const Arguments& given,
                              const std::string& config = KT_TINY_CONFIG) {
    const nlohmann::json whole = train(On::kHost, 0, given, nullptr, config);
    Arguments part = given;
    part.push_back(fmt::format("train.max_steps={}", steps));
    for (const On first : {On::kHost, On::kDevices}) {
      const bool to_devices = first == On::kHost;
      const std::string run = name + (to_devices ? "-to-devices" : "-to-host");
      const Ended stopped = start(first, to_devices ? 0 : 2, run, part, config);
      ASSERT_EQ(stopped.code, 0) << stopped.out << stopped.err;
      const Ended resumed = start(to_devices ? On::kDevices : On::kHost, 3, run, given, config);
      ASSERT_EQ(resumed.code, 0) << resumed.out << resumed.err;
      const nlohmann::json result = json_file(folder() / run / "result.json");
      EXPECT_EQ(result.at("resumed_from"), nlohmann::json::array({steps}));
      EXPECT_EQ(result.at("weights_hash"), whole.at("weights_hash")) << run;
    }
  }
  static std::string data(const char* name) { return "data.path=" + (folder() / name).string(); }

  static std::unique_ptr<Workshop> shop_;
};
std::unique_ptr<Workshop> Devices::shop_;

TEST_F(Devices, ExactTrainingHasTheBitsOfTheCpu) {
  const Arguments cases[] = {
      // Parts of ids.
      {data("dataset"), "train.global_batch=1024", "train.max_steps=12", "data.target.clip=5"},
      {data("dataset"), "train.epochs=2", "train.max_steps=40", "data.target.clip=5"},
      {data("dataset"), "model.content=none", "train.global_batch=32", "train.max_steps=30",
       "train.optimizer.name=adamw", "train.weight_decay=0.01", "train.clip_norm=0.5",
       "train.schedule.name=cosine", "train.schedule.warmup_steps=10", "train.schedule.steps=100"},
      // Empty shards, a user with half of the rows, empty steps of a rank.
      {data("ratings"), "model.content=none", "train.global_batch=32", "train.epochs=2",
       "train.max_steps=60", "train.optimizer.name=sgd", "train.optimizer.momentum=0.9",
       "train.optimizer.lr=0.01"},
      {data("ratings"), "model.content=none", "train.global_batch=256", "train.epochs=3",
       "train.optimizer.name=sgd", "train.clip_norm=0.2"},
  };
  for (const Arguments& given : cases) {
    const nlohmann::json host = train(On::kHost, 0, given);
    ASSERT_FALSE(host.is_null());
    EXPECT_EQ(host.at("backend"), "mpi");
    EXPECT_GT(host.at("updates").get<int>(), 3);
    for (const char* engine : {"fused", "torch"}) {
      Arguments by = given;
      by.push_back(fmt::format("model.engine={}", engine));
      const nlohmann::json want =
          by.back() == "model.engine=fused" ? host : train(On::kHost, 0, by);
      for (const int ranks : {1, 2, 3}) {
        const nlohmann::json device = train(On::kDevices, ranks, by);
        ASSERT_FALSE(device.is_null());
        EXPECT_EQ(device.at("backend"), "nccl");
        EXPECT_EQ(outcome(device), outcome(want))
            << given[0] << ", " << engine << ", " << ranks << " ranks";
      }
    }
  }
}

// Columns of tables and rows, biases, penalties, batch norms, several rates, losses of rows and of groups; a workspace that
// a team cannot share.
TEST_F(Devices, OtherSystemsHaveTheBitsOfTheCpu) {
  const std::string configs[] = {
      "model: {name: mf, embedding: 8, penalty: .01}\n",
      "model: {name: feature_mlp, encoding: k_fold, shrink: 5, dropout: .1}\n",
      "model: {name: bpr, embedding: 8, penalty: .01, negatives: {kind: uniform}, target: {kind: "
      "positive, "
      "threshold: 1}}\n",
      "model: {name: softmax, negatives: {count: 80}, target: {kind: positive, threshold: 1}}\n",
      "model: {name: mf, embedding: 8, loss: lambdarank, negatives: {kind: rows, count: 9}}\n",
      "model: {name: two_tower, user_columns: codes, daily: false, categories: true, hidden: [32], "
      "width: 8, biases: "
      "true,\n"
      "        normalize: false, dropout: .1, loss: huber}\n",
      "model: {name: two_tower, user_columns: codes, daily: false, categories: true, hidden: "
      "[1200], width: 8}\n",
      "model: {name: ncf, content: none, loss: bce, target: {kind: positive}}\n",
      "model: {name: ncf, content: none, target: {kind: log}}\n"};
  for (const std::string& text : configs) {
    const std::string config = folder() / "other.yaml";
    write_file(config, text);
    const Arguments given{data("dataset"), "train.global_batch=1024", "train.max_steps=6",
                          "data.target.clip=5", "checkpoint.best=none"};
    const nlohmann::json host = train(On::kHost, 0, given, nullptr, config);
    ASSERT_FALSE(host.is_null());
    for (const int ranks : {1, 3}) {
      const nlohmann::json device = train(On::kDevices, ranks, given, nullptr, config);
      ASSERT_FALSE(device.is_null());
      EXPECT_EQ(device.at("backend"), "nccl");
      EXPECT_EQ(outcome(device), outcome(host)) << text << ranks << " ranks";
    }
  }
}

TEST_F(Devices, FastTrainingComesNear) {
  Arguments given{data("dataset"), "train.epochs=1", "train.max_steps=40", "parallel.reduce=fast"};
  const nlohmann::json host = train(On::kHost, 2, given);
  const double error = host.at("evaluation").at("metrics").at("mae");
  for (const int ranks : {1, 2, 3}) {
    const nlohmann::json device = train(On::kDevices, ranks, given);
    ASSERT_FALSE(device.is_null());
    EXPECT_EQ(device.at("reduce"), "fast");
    EXPECT_NEAR(device.at("evaluation").at("metrics").at("mae"), error, 1e-3 * error);
  }
}

TEST_F(Devices, SamplesMayBeLargerThanTheDevice) {
  // Into the second epoch.
  const Arguments given{data("dataset"), "train.global_batch=1024", "train.epochs=3",
                        "train.max_steps=30"};
  const nlohmann::json host = train(On::kHost, 0, given);
  ASSERT_FALSE(host.is_null());
  std::string log;
  EXPECT_EQ(outcome(train(On::kDevices, 2, given, &log)), outcome(host));
  EXPECT_THAT(log, HasSubstr("samples: in device memory"));
  // Steps are prepared a few at once.
  setenv("KT_STAND_IN_FREE_BYTES", "8000000", 1);
  for (const int ranks : {1, 3}) {
    EXPECT_EQ(outcome(train(On::kDevices, ranks, given, &log)), outcome(host)) << ranks << " ranks";
    EXPECT_THAT(log, HasSubstr("samples: in device memory"));
  }
  setenv("KT_STAND_IN_FREE_BYTES", "1000", 1);
  for (const int ranks : {1, 2, 3}) {
    EXPECT_EQ(outcome(train(On::kDevices, ranks, given, &log)), outcome(host)) << ranks << " ranks";
    EXPECT_THAT(log, HasSubstr(fmt::format("samples: {0} of {0} ranks have no room", ranks)));
  }
  unsetenv("KT_STAND_IN_FREE_BYTES");
}

TEST_F(Devices, ARunGoesOnElsewhere) {
  const Arguments given{data("ratings"), "model.content=none", "train.global_batch=32",
                        "train.epochs=1"};
  Arguments part = given;
  part.push_back("train.max_steps=40");
  go_on_elsewhere("ncf", 40, given);  // in mid-epoch

  // Another engine is another run.
  Arguments torch = part;
  torch.push_back("model.engine=torch");
  ASSERT_EQ(start(On::kHost, 0, "torch", torch).code, 0);
  const Ended refused = start(On::kDevices, 2, "torch", given);
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.out + refused.err,
              HasSubstr("model.engine: stored \"torch\", now \"fused\""));
}

TEST_F(Devices, AutoencodersHaveTheBitsOfTheCpu) {
  const char* const forms[] = {
      "{name: autoencoder, input: binary, hidden: [20, 9, 33]}",
      "{name: autoencoder, input: binary, loss_over: shown, hidden: [17, 70], input_dropout: .5}",
      "{name: autoencoder, input: ratio, hidden: [140], dropout: 0, input_dropout: .2}",
      "{name: autoencoder, input: residual, loss_over: shown, hidden: [18, 9, 20], dropout: .1}"};
  for (const char* text : forms) {
    const std::string config = folder() / "autoencoder.yaml";
    write_file(config, fmt::format("model: {}\n", text));
    Arguments given{data("dataset"),       "train.global_batch=10",   "train.epochs=2",
                    "train.clip_norm=0.5", "train.weight_decay=0.01", "data.target.clip=5",
                    "checkpoint.best=none"};
    const nlohmann::json host = train(On::kHost, 0, given, nullptr, config);
    ASSERT_FALSE(host.is_null());
    EXPECT_GT(host.at("updates").get<int>(), 3);
    for (const int ranks : {1, 2, 3}) {
      const nlohmann::json device = train(On::kDevices, ranks, given, nullptr, config);
      ASSERT_FALSE(device.is_null());
      EXPECT_EQ(device.at("backend"), "nccl");
      EXPECT_EQ(outcome(device), outcome(host)) << text << ranks << " ranks";
    }
  }
}

TEST_F(Devices, AutoencodersGoOnElsewhere) {
  const std::string config = folder() / "autoencoder.yaml";
  write_file(config, "model: {name: autoencoder, input: residual, hidden: [12, 5]}\n");
  // In mid-epoch, and with ranks that have no rows.
  go_on_elsewhere("autoencoder", 2,
                  {data("ratings"), "train.global_batch=2", "train.epochs=2",
                   "data.validation.fraction=0", "checkpoint.best=none"},
                  config);
}

TEST_F(Devices, LeastSquaresGoOnElsewhere) {
  const std::string config = folder() / "als.yaml";
  write_file(config, "model: {name: als, embedding: 5, input: residual, rows: shown}\n");
  go_on_elsewhere("als", 3, {data("ratings"), "train.epochs=3", "checkpoint.best=none"}, config);
}

TEST_F(Devices, BadStepsAreTreatedAlike) {
  // One absurd label, as in program_resume_test.cpp.
  const std::filesystem::path absurd = folder() / "absurd";
  std::filesystem::create_directories(absurd);
  write_ratings(absurd);
  std::string text = file_text(absurd / "ratings.tsv");
  const size_t row = text.find("whale\titem-");
  text.replace(text.find('\t', row + 6) + 1, 1, "1e15");
  write_file(absurd / "ratings.tsv", text);
  import_ratings(absurd);
  Arguments given{"data.path=" + (absurd / "ratings").string(),
                  "model.content=none",
                  "data.validation.fraction=0",
                  "checkpoint.best=none",
                  "train.optimizer.name=sgd",
                  "train.optimizer.lr=0.01",
                  "train.epochs=1",
                  "checkpoint.every_steps=4"};
  Arguments rewind = given, skip = given;
  rewind.push_back("train.on_bad_step=rewind");
  skip.push_back("train.on_bad_step=skip");

  const nlohmann::json host = train(On::kHost, 0, rewind);
  ASSERT_FALSE(host.is_null());
  EXPECT_EQ(host.at("bad_steps"), 1);
  EXPECT_EQ(outcome(train(On::kDevices, 2, rewind)), outcome(host));

  EXPECT_EQ(start(On::kHost, 0, "skip-host", skip).code, 0);
  EXPECT_EQ(start(On::kDevices, 2, "skip-device", skip).code, 0);
  const auto progress = [](const std::string& run) {
    return json_file(folder() / run / "latest" / "manifest.json")
        .at("content")
        .at("state")
        .at("progress");
  };
  EXPECT_GT(progress("skip-host").at("bad_steps").get<int>(), 1);
  for (const char* key : {"step", "updates", "bad_steps"})
    EXPECT_EQ(progress("skip-device").at(key), progress("skip-host").at(key)) << key;

  const Ended stopped = start(On::kDevices, 2, "stop", given);
  EXPECT_EQ(stopped.code, 2);
  EXPECT_THAT(stopped.errors(),
              ElementsAre(ContainsRegex("step [0-9]+ .epoch 1.: the loss is .*; lower train")));
}

// Parts of ids, rows of tables, columns of users and videos; scores that are not the outputs.
TEST_F(Devices, StoredRunsAreScoredAsOnTheHost) {
  const std::pair<std::string, Arguments> cases[] = {
      {"model: {name: ncf}\n", {"train.global_batch=1024", "train.max_steps=12"}},
      {"model: {name: ncf, content: none, target: {kind: log}}\n",
       {"train.global_batch=64", "train.max_steps=12", "parallel.reduce=fast"}},
      {"model: {name: two_tower, user_columns: codes, daily: false, categories: true, hidden: "
       "[1200], width: 8,\n        target: {kind: standard}}\n",
       {"train.global_batch=1024", "train.max_steps=4", "data.target.clip=5"}}};
  write_file(folder() / "few.txt", "0 5 17 300\n");
  int run = 0;
  for (const auto& [text, keys] : cases) {
    const std::string dir = path(fmt::format("scored-{}", ++run));
    write_file(folder() / "scored.yaml", text);
    Arguments training = keys;
    training.insert(training.end(), {data("dataset"), "checkpoint.best=none"});
    ASSERT_EQ(
        start(On::kHost, 0, fmt::format("scored-{}", run), training, path("scored.yaml")).code, 0);
    const auto evaluate = [&](On on, int ranks, const Arguments& more) {
      Arguments arguments{"evaluate",         dir,          "--json",         "--scores",
                          path("scores.csv"), "--per-user", path("users.csv")};
      arguments.insert(arguments.end(), more.begin(), more.end());
      const Ended ended = ask(on, ranks, arguments);
      EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
      EXPECT_EQ(ended.err.find("scores: by the fused engine on a device") != std::string::npos,
                on == On::kDevices)
          << ended.err;
      nlohmann::json report = nlohmann::json::parse(ended.out);
      report.erase("seconds");
      report.erase("parts");
      return report.dump(1) + file_text(folder() / "scores.csv") +
             file_text(folder() / "users.csv");
    };
    const std::string expected = evaluate(On::kHost, 2, {});
    for (const int ranks : {1, 2, 3})
      EXPECT_EQ(evaluate(On::kDevices, ranks, {}), expected) << text << ranks << " ranks";
    if (run == 1) {
      const Arguments catalogue{"evaluate.candidates=catalogue"};
      EXPECT_EQ(evaluate(On::kDevices, 2, catalogue), evaluate(On::kHost, 0, catalogue));
    }
    const auto lists = [&](On on, const Arguments& more) {
      Arguments arguments{"recommend", dir, "--out", path("lists.csv")};
      arguments.insert(arguments.end(), more.begin(), more.end());
      const Ended ended = ask(on, 0, arguments);
      EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
      return file_text(folder() / "lists.csv");
    };
    const Arguments all{"--all-users",    "--top",     "7",
                        "--exclude-seen", "--exclude", path("few.txt")};
    const std::string of_all = lists(On::kHost, all);
    setenv("KT_STAND_IN_FREE_BYTES", "1000000", 1);  // 65 users at a time
    EXPECT_EQ(lists(On::kDevices, all), of_all) << text;
    unsetenv("KT_STAND_IN_FREE_BYTES");
    const Arguments one{"--user", "14", "--top", "1000"};  // of 480 videos
    EXPECT_EQ(lists(On::kDevices, one), lists(On::kHost, one)) << text;
  }
}

TEST_F(Devices, WhatTheyCannotScoreIsOfTheHost) {
  write_file(folder() / "mean.yaml", "model: {name: video_mean}\n");
  write_file(folder() / "squares.yaml", "model: {name: als, embedding: 4}\n");
  const std::tuple<std::string, Arguments, const char*> runs[] = {
      {path("mean.yaml"),
       {},
       "model.name: got video_mean, which has no form on GPUs: it is found in one step"},
      {path("squares.yaml"),
       {},
       "model.name: got als, whose stored runs are scored on the host alone"},
      {KT_TINY_CONFIG,
       {"model.engine=torch", "model.content=none", "train.max_steps=3"},
       "model.engine: got torch, which scores a stored run on the host alone"}};
  int run = 0;
  for (const auto& [config, keys, why] : runs) {
    const std::string name = fmt::format("unscored-{}", ++run), dir = path(name);
    Arguments training = keys;
    training.insert(training.end(), {data("ratings"), "checkpoint.best=none"});
    ASSERT_EQ(start(On::kHost, 0, name, training, config).code, 0);
    const auto scores = [&](On on) {
      const Ended ended = ask(on, 2, {"evaluate", dir, "--scores", path("scores.csv")});
      EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
      EXPECT_EQ(ended.out.find(fmt::format("parallel.backend=auto scores on the host: {}", why)) !=
                    std::string::npos,
                on == On::kDevices)
          << ended.out;
      return file_text(folder() / "scores.csv");
    };
    const std::string expected = scores(On::kHost);
    EXPECT_EQ(scores(On::kDevices), expected);
    for (const Arguments& command :
         {Arguments{"evaluate", dir}, {"recommend", dir, "--user", "whale"}}) {
      Arguments arguments = command;
      arguments.push_back("parallel.backend=nccl");
      const Ended refused = ask(On::kDevices, 0, arguments);
      EXPECT_EQ(refused.code, 2);
      EXPECT_THAT(refused.errors(),
                  ElementsAre(HasSubstr(fmt::format("{}; set parallel.backend=auto", why))));
    }
  }
}

TEST_F(Devices, WhereARunWasTrainedBindsNobodyWhoScoresIt) {
  const std::string dir = path("of-devices");
  ASSERT_EQ(
      start(On::kDevices, 2, "of-devices",
            {data("ratings"), "model.content=none", "train.max_steps=3", "parallel.backend=nccl"})
          .code,
      0);
  // Some ranks have one user, or none.
  const auto scores = [&](On on) {
    const Ended ended = ask(on, 3, {"evaluate", dir, "--scores", path("scores.csv")});
    EXPECT_EQ(ended.code, 0) << ended.out << ended.err;
    EXPECT_EQ(ended.out.find("scores: by the fused engine on a device a rank") != std::string::npos,
              on == On::kDevices);
    return file_text(folder() / "scores.csv");
  };
  const std::string expected = scores(On::kHost);
  EXPECT_EQ(scores(On::kDevices), expected);
  const Ended refused = ask(On::kHost, 0, {"evaluate", dir, "parallel.backend=nccl"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.errors(),
              ElementsAre(HasSubstr("parallel.backend: got nccl, but this build has no NCCL")));
}

TEST_F(Devices, WhatTheyCannotTrainIsNamed) {
  for (const auto& [name, keys, why] :
       {std::tuple("ease", "", "it is found in one step"),
        std::tuple("lightgcn", "", "its embeddings are propagated over all rows"),
        std::tuple("softmax", ", negatives: {kind: all}", "its softmax is over all videos")}) {
    const std::string config = folder() / "refused.yaml";
    write_file(config, fmt::format("model: {{name: {}{}}}\n", name, keys));
    const Ended refused =
        start(On::kDevices, 2, "refused-" + std::string(name), {data("ratings")}, config);
    EXPECT_EQ(refused.code, 2);
    EXPECT_THAT(refused.errors(),
                ElementsAre(HasSubstr(
                    fmt::format("model.name: got {}, which has no form on GPUs: {}", name, why))));
  }
  const std::tuple<const char*, const char*, const char*> systems[] = {
      {"model.penalty=0.1", "torch", " on GPUs by libtorch: it has a penalty on embeddings"},
      {"model.loss=huber", "torch", " on GPUs by libtorch: its loss is not the squared error"},
      {"model.target.kind=log", "torch",
       " on GPUs by libtorch: its target is not the label itself"}};
  for (const char* backend : {"nccl", "auto"})
    for (const auto& [option, engine, why] : systems) {
      const Ended refused = start(
          On::kDevices, 2, "other",
          {data("ratings"), "model.content=none", option, fmt::format("model.engine={}", engine),
           fmt::format("parallel.backend={}", backend)});
      EXPECT_EQ(refused.code, 2);
      EXPECT_THAT(refused.errors(),
                  ElementsAre(HasSubstr(fmt::format("model.name: got ncf, which has no form{}; set "
                                                    "parallel.backend=mpi",
                                                    why))));
    }
}

TEST_F(Devices, LeastSquaresHaveTheBitsOfTheCpu) {
  const std::pair<const char*, const char*> forms[] = {
      {"dataset", "{name: als, embedding: 9}"},
      // Seen zeros, blocks of factors.
      {"dataset",
       "{name: als, embedding: 20, unobserved: 0, rows: shown, frequency: .5, block: 7, "
       "regularization: 1}"},
      {"dataset",
       "{name: als, embedding: 6, input: residual, rows: shown, unobserved_pairs: unshown, "
       "exclude_block: true}"},
      // More than a team shares.
      {"ratings", "{name: als, embedding: 180, rows: shown, regularization: 10}"}};
  for (const auto& [name, text] : forms) {
    const std::string config = folder() / "als.yaml";
    write_file(config, fmt::format("model: {}\n", text));
    Arguments given{data(name), "train.epochs=2", "data.target.clip=5",
                    "data.validation.fraction=0", "checkpoint.best=none"};
    const nlohmann::json host = train(On::kHost, 0, given, nullptr, config);
    ASSERT_FALSE(host.is_null());
    EXPECT_EQ(host.at("backend"), "mpi");
    for (const int ranks : {1, 3}) {
      const nlohmann::json device = train(On::kDevices, ranks, given, nullptr, config);
      ASSERT_FALSE(device.is_null());
      EXPECT_EQ(device.at("backend"), "nccl");
      EXPECT_EQ(outcome(device), outcome(host)) << text << ranks << " ranks";
    }
    given.push_back("parallel.reduce=fast");  // whole tables on all
    EXPECT_EQ(train(On::kDevices, 2, given, nullptr, config).at("weights_hash"),
              host.at("weights_hash"));
  }
}

TEST_F(Devices, BackendIsChosen) {
  const Arguments given{data("ratings"), "model.content=none", "train.max_steps=2"};
  const auto with = [&](const char* choice) {
    Arguments all = given;
    all.push_back(choice);
    return all;
  };
  EXPECT_EQ(train(On::kDevices, 2, with("parallel.backend=mpi")).at("backend"), "mpi");
  EXPECT_EQ(train(On::kDevices, 2, with("parallel.backend=nccl")).at("backend"), "nccl");
  EXPECT_EQ(train(On::kDevices, 2, with("parallel.backend=auto")).at("backend"), "nccl");
  const Ended refused = start(On::kHost, 2, "refused", with("parallel.backend=nccl"));
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.errors(),
              ElementsAre(HasSubstr("parallel.backend: got nccl, but this build has no NCCL")));
  const Ended slow = start(On::kHost, 2, "slow", [&] {
    Arguments all = with("parallel.precision=tf32");
    all.push_back("parallel.reduce=fast");
    return all;
  }());
  EXPECT_EQ(slow.code, 2);
  EXPECT_THAT(slow.errors(), ElementsAre(HasSubstr("parallel.precision: got tf32, but")));
  // The stand-in's host has eight devices.
  const Ended crowded = start(On::kDevices, 9, "crowded", with("parallel.backend=nccl"));
  EXPECT_EQ(crowded.code, 2);
  EXPECT_THAT(crowded.errors(), ElementsAre(ContainsRegex("9 ranks, but 8 devices")));
  const Ended back = start(On::kDevices, 9, "back", with("parallel.backend=auto"));
  EXPECT_EQ(back.code, 0) << back.out << back.err;
  EXPECT_THAT(back.out, HasSubstr("parallel.backend=auto takes MPI: host "));
}

}  // namespace
}  // namespace kt
