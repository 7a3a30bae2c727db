#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "io/config/reader.h"
#include "io/config/writers.h"
#include "launch/base/errors.h"
#include "tests/support/declared_models.h"

namespace kt {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

ConfigReading read(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return read_config(text, "some/toy.yaml", overrides, declared_models());
}
std::vector<std::string> faults(const std::string& text,
                                const std::vector<std::string>& overrides = {}) {
  return read(text, overrides).faults;
}

TEST(Config, EmptyFileHasTheDefaults) {
  for (const char* text : {"", "# nothing\n", "train:\n", "---\n"}) {
    const ConfigReading reading = read(text);
    EXPECT_THAT(reading.faults, IsEmpty()) << text;
    EXPECT_EQ(reading.config.train.global_batch, 4096);
    EXPECT_EQ(reading.config.evaluate.k, (std::vector<int64_t>{10, 50, 100}));
    EXPECT_THAT(reading.config.evaluate.labels,
                ElementsAre("ratio>=1", "ratio>=2", "top-50", "duration-p80"));
    EXPECT_EQ(reading.config.train.plateau.metric, SelectionMetric::kNone);
    EXPECT_EQ(reading.config.model.name, "ncf");
    EXPECT_EQ(reading.config.run.dir, "runs/toy");
  }
}

TEST(Config, ReadsEveryTypeOfValue) {
  const ConfigReading reading = read(R"(
data:
  path: "my data"
  validation: {kind: temporal, fraction: 0.25}
  features: {until: 2020-08-01, missing: median}
  filter: {positive: true, max_duration_ms: 160000, video_type: normal, visibility: public, max_label: 5}
  repeats: sum
model: {name: tower, bias: false, engine: fused, form: ids}
parallel: {simd: avx2}
train:
  seed: 9223372036854775807
  optimizer: {name: adamw, lr: 2.5e-4}
  early_stop: {metric: xauc, patience: 3}
  plateau: {metric: mae_clipped, factor: .3, patience: 4, min_lr: 1e-5}
evaluate: {k: [1, 7], labels: [ratio>=4, top-3]}
)");
  EXPECT_THAT(reading.faults, IsEmpty());
  const Config& config = reading.config;
  EXPECT_EQ(config.data.path, "my data");
  EXPECT_EQ(config.data.validation.kind, ValidationKind::kTemporal);
  EXPECT_EQ(config.data.validation.fraction, 0.25);
  EXPECT_EQ(config.data.features.until.yyyymmdd, 20200801);
  EXPECT_EQ(config.data.features.missing, MissingValue::kMedian);
  EXPECT_FALSE(config.model.options.flag("bias"));
  EXPECT_TRUE(config.data.filter.positive);
  EXPECT_EQ(config.data.filter.max_duration_ms, 160000);
  EXPECT_EQ(config.data.filter.video_type, VideoType::kNormal);
  EXPECT_EQ(config.data.filter.visibility, Visibility::kPublic);
  EXPECT_EQ(config.data.filter.max_label, 5);
  EXPECT_EQ(config.data.repeats, Repeats::kSum);
  EXPECT_EQ(config.model.engine, EngineName::kFused);
  EXPECT_EQ(config.model.form, FormName::kIds);
  EXPECT_EQ(config.parallel.simd, Simd::kAvx2);
  EXPECT_EQ(config.train.seed, 9223372036854775807);
  EXPECT_EQ(config.train.optimizer.name, OptimizerName::kAdamW);
  EXPECT_EQ(config.train.optimizer.lr, 2.5e-4);
  EXPECT_EQ(config.train.early_stop.metric, SelectionMetric::kXauc);
  EXPECT_EQ(config.train.plateau.metric, SelectionMetric::kMaeClipped);
  EXPECT_EQ(config.train.plateau.factor, .3);
  EXPECT_EQ(config.train.plateau.patience, 4);
  EXPECT_EQ(config.train.plateau.min_lr, 1e-5);
  EXPECT_EQ(config.evaluate.k, (std::vector<int64_t>{1, 7}));
  EXPECT_THAT(config.evaluate.labels, ElementsAre("ratio>=4", "top-3"));
}

TEST(Config, OverridesWinAndTheLastOfThem) {
  const ConfigReading reading =
      read("train: {epochs: 3}\ndata: {path: there}\n",
           {"train.epochs=4", "evaluate.k=[2, 3]", "train.epochs=6", "data.path=", "run.dir=here",
            "data.features.until=2020-07-31"});
  EXPECT_THAT(reading.faults, IsEmpty());
  EXPECT_EQ(reading.config.train.epochs, 6);
  EXPECT_EQ(reading.config.evaluate.k, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(reading.config.data.path, "");
  EXPECT_EQ(reading.config.run.dir, "here");
  EXPECT_EQ(reading.config.data.features.until.yyyymmdd, 20200731);
}

TEST(Config, UnknownKeysNameTheNearest) {
  EXPECT_THAT(faults("train:\n  epoch: 3\n"),
              ElementsAre(AllOf(StartsWith("some/toy.yaml:2: got the unknown key train.epoch"),
                                HasSubstr("nearest is train.epochs"))));
  EXPECT_THAT(faults("train:\n  lr: .1\n"),
              ElementsAre(HasSubstr("nearest is train.optimizer.lr")));
  EXPECT_THAT(faults("trian:\n  seed: 1\n"),
              ElementsAre(StartsWith("some/toy.yaml:1: got the unknown key trian")));
  EXPECT_THAT(faults("", {"parallel.thread=2"}),
              ElementsAre(AllOf(StartsWith("command line: parallel.thread=2: got the unknown key"),
                                HasSubstr("nearest is parallel.threads"))));
}

TEST(Config, WrongTypesAndRanges) {
  const auto one = [](const std::string& override_text) {
    const std::vector<std::string> all = faults("", {override_text});
    EXPECT_EQ(all.size(), 1u) << override_text;
    return all.empty() ? "" : all[0];
  };
  EXPECT_EQ(
      one("train.epochs=many"),
      "command line: train.epochs=many: train.epochs: got many, expected a whole number >= 1 and "
      "<= 1000000");
  EXPECT_EQ(one("data.validation.fraction=1"),
            "command line: data.validation.fraction=1: data.validation.fraction: got 1, expected a "
            "number >= 0 and < 1");
  EXPECT_EQ(one("data.validation.kind=last"),
            "command line: data.validation.kind=last: data.validation.kind: got last, expected "
            "random or temporal");
  EXPECT_THAT(one("train.epochs=0"), HasSubstr("got 0, expected a whole number >= 1"));
  EXPECT_THAT(one("train.epochs=1.5"), HasSubstr("got 1.5"));
  EXPECT_THAT(one("train.epochs='5'"), HasSubstr("got 5 in quotes"));
  EXPECT_THAT(one("train.epochs="), HasSubstr("expected a whole number"));
  EXPECT_THAT(one("train.epochs=[1]"), HasSubstr("got [1]"));
  EXPECT_THAT(one("train.optimizer.lr=0"), HasSubstr("a number >= 1e-37 and <= 3e+38"));
  EXPECT_THAT(one("train.optimizer.lr=nan"), HasSubstr("got nan"));
  EXPECT_THAT(one("train.optimizer.lr=inf"), HasSubstr("got inf"));
  EXPECT_THAT(one("train.optimizer.lr=.inf"), HasSubstr("got .inf"));
  EXPECT_THAT(one("evaluate.k=10"),
              HasSubstr("expected a growing list of at most 100 whole numbers"));
  EXPECT_THAT(one("evaluate.k=[]"), HasSubstr("growing list"));
  EXPECT_THAT(one("evaluate.k=[5, 5]"), HasSubstr("got [5, 5]"));
  EXPECT_THAT(one("evaluate.k=[0]"), HasSubstr("got [0]"));
  EXPECT_THAT(one("train.plateau.factor=1"), HasSubstr("expected a number >= 1e-37 and < 1"));
  EXPECT_THAT(one("train.plateau.factor=0"), HasSubstr("expected a number >= 1e-37 and < 1"));
  EXPECT_THAT(one("train.plateau.patience=0"), HasSubstr("expected a whole number >= 1"));
  EXPECT_THAT(one("train.plateau.metric=ndcg"), HasSubstr("got ndcg, expected none or mse"));
  EXPECT_THAT(one("data.features.until=2020-02-30"), HasSubstr("a day as 2020-08-01"));
  EXPECT_THAT(one("data.features.until=20200801"), HasSubstr("a day as 2020-08-01"));
  for (const char* text : {"yes", "'true'", "1", "True", ""})
    EXPECT_THAT(one(fmt::format("data.filter.positive={}", text)),
                HasSubstr("expected true or false"));
  EXPECT_THAT(one("data.filter.max_label=-1"), HasSubstr("expected 0, or a number >= 1e-37"));
  EXPECT_THAT(one("data.filter.max_duration_ms=3000000000"),
              HasSubstr("expected a whole number >= 0 and <= 2147483647"));
  EXPECT_THAT(one("data.filter.video_type=ad"), HasSubstr("expected any or normal"));
  EXPECT_THAT(one("data.filter.visibility=private"), HasSubstr("expected any or public"));
  EXPECT_THAT(one("data.repeats=last"), HasSubstr("expected keep or first or sum or mean"));
  EXPECT_THAT(one("checkpoint.keep=1"), HasSubstr("a whole number >= 2"));
  EXPECT_THAT(one("checkpoint.resume="), HasSubstr("expected text"));
  EXPECT_THAT(one("model.name=ncff"), HasSubstr("got ncff, expected ncf or tower or shallow"));
  EXPECT_THAT(one("data.path={a: b}"), HasSubstr("got a section, expected text"));
  EXPECT_THAT(one("data.path=~"), HasSubstr("got nothing, expected text"));
  EXPECT_THAT(one("parallel.backend=gloo"), HasSubstr("got gloo, expected auto or mpi or nccl"));
  EXPECT_THAT(one("model.engine=jax"), HasSubstr("got jax, expected auto or fused or torch"));
  EXPECT_THAT(one("model.form=columns"), HasSubstr("got columns, expected auto or rows or ids"));
  EXPECT_THAT(one("parallel.simd=sse"), HasSubstr("got sse, expected auto or avx2 or avx512"));
  EXPECT_THAT(one("train.epochs"), HasSubstr("got no 'key=value'"));
  EXPECT_THAT(one("train=1"), HasSubstr("train is a section"));
  EXPECT_THAT(one("evaluate.k=[1"), HasSubstr("got a value that is no YAML"));
}

TEST(Config, FaultsOfStructureNameTheLine) {
  EXPECT_THAT(faults("train:\n  seed: 1\n  epochs: 2\n  seed: 3\n"),
              ElementsAre("some/toy.yaml:4: train.seed: got it a second time, expected once; the "
                          "first is in line 2"));
  EXPECT_THAT(faults("train: {}\nrun: {}\ntrain: {}\n"),
              ElementsAre(StartsWith("some/toy.yaml:3: train: got it a second time")));
  EXPECT_THAT(faults("\ntrain: 5\n"),
              ElementsAre(StartsWith("some/toy.yaml:2: train: got 5, expected a section")));
  EXPECT_THAT(faults("train:\n  epochs: [1\nlog: {}\n"),
              ElementsAre(HasSubstr("got text that is no YAML")));
  EXPECT_THAT(faults("- 1\n"), ElementsAre(HasSubstr("expected sections of keys")));
  EXPECT_THAT(faults("run: {}\n---\nrun: {}\n"),
              ElementsAre(AllOf(StartsWith("some/toy.yaml:"), HasSubstr("second document"))));
  EXPECT_THAT(faults("? [a, b]\n: 1\n"), ElementsAre(HasSubstr("got [a, b] for a key")));
  EXPECT_THAT(faults("data:\n  path:\n"),
              ElementsAre(StartsWith("some/toy.yaml:2: data.path: got nothing")));
}

TEST(Config, AllFaultsAtOnceInOneUserError) {
  const fs::path file = fs::path(::testing::TempDir()) / "three_faults.yaml";
  std::ofstream(file) << "train:\n  epochs: none\n  sed: 1\nlog:\n  every_steps: 0\n";
  try {
    load_config(file, {"run.max_seconds=-1"}, declared_models());
    FAIL() << "four faults went through";
  } catch (const UserError& error) {
    const std::string message = error.what();
    EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 3) << message;
    EXPECT_THAT(message, HasSubstr("three_faults.yaml:2: train.epochs"));
    EXPECT_THAT(message, HasSubstr("three_faults.yaml:3: got the unknown key train.sed"));
    EXPECT_THAT(message, HasSubstr("three_faults.yaml:5: log.every_steps"));
    EXPECT_THAT(message, HasSubstr("command line: run.max_seconds=-1"));
  }
}

// As a sweep sets keys: the last one given has the place of a contradiction.
TEST(Config, OverridesOfAFileAreToldWithTheirPlace) {
  const std::vector<std::string> overrides = {"train.epochs=none", "train.seed=-1"};
  const std::vector<std::string> places = {"sweep.yaml:7"};
  EXPECT_THAT(read_config("", "toy.yaml", overrides, declared_models(), places).faults,
              ElementsAre(StartsWith("sweep.yaml:7: train.epochs=none: train.epochs: got none"),
                          StartsWith("command line: train.seed=-1: train.seed: got -1")));
  const std::vector<std::string> momentum = {"train.optimizer.momentum=.9"};
  EXPECT_THAT(read_config("train: {optimizer: {name: adam}}", "toy.yaml", momentum,
                          declared_models(), places)
                  .faults,
              ElementsAre(StartsWith("sweep.yaml:7: train.optimizer.momentum=.9: ")));
}

TEST(Config, MissingFileIsAFault) {
  EXPECT_THAT(read_config_file("no/such.yaml", {}, declared_models()).faults,
              ElementsAre(StartsWith("no/such.yaml: got no readable file")));
  EXPECT_THAT(read_config_file(::testing::TempDir(), {}, declared_models()).faults,
              ElementsAre(HasSubstr("got no readable file")));
}

TEST(Config, ContradictionsNameTheKeys) {
  EXPECT_THAT(
      faults("train:\n  schedule:\n    name: linear\n    steps: 10\n    warmup_steps: 11\n"),
      ElementsAre(AllOf(StartsWith("some/toy.yaml:5: train.schedule.warmup_steps: got "
                                   "train.schedule.warmup_steps=11 with train.schedule.steps=10"),
                        HasSubstr("raise the second"))));
  EXPECT_THAT(faults("train: {schedule: {steps: 10}}\n"),
              ElementsAre(HasSubstr("a length only for linear or cosine")));
  EXPECT_THAT(faults("", {"train.optimizer.momentum=0.9"}),
              ElementsAre(StartsWith("command line: train.optimizer.momentum=0.9: "
                                     "train.optimizer.momentum: got train.optimizer.momentum=0.9 "
                                     "with train.optimizer.name=adam, expected momentum only "
                                     "with sgd")));
  EXPECT_THAT(faults("", {"train.optimizer.name=sgd", "train.optimizer.beta2=0.9"}),
              ElementsAre(HasSubstr("expected that key only with adam or adamw")));
  EXPECT_THAT(faults("", {"data.validation.fraction=0"}),
              ElementsAre(HasSubstr("set checkpoint.best to none")));
  EXPECT_THAT(faults("", {"data.validation.fraction=0", "checkpoint.best=none",
                          "train.early_stop.metric=mae"}),
              ElementsAre(HasSubstr("raise the fraction or set train.early_stop.metric to none")));
  EXPECT_THAT(faults("", {"data.validation.fraction=0", "checkpoint.best=none",
                          "train.plateau.metric=gauc"}),
              ElementsAre(AllOf(HasSubstr("got train.plateau.metric=gauc with "
                                          "data.validation.fraction=0"),
                                HasSubstr("set train.plateau.metric to none"))));
  EXPECT_THAT(faults("train: {plateau: {metric: mse}, schedule: {name: cosine}}\n"),
              ElementsAre(AllOf(HasSubstr("got train.plateau.metric=mse with "
                                          "train.schedule.name=cosine"),
                                HasSubstr("set the schedule to constant or the metric to none"))));
  EXPECT_THAT(faults("", {"train.plateau.metric=mse", "train.plateau.min_lr=.01"}),
              ElementsAre(HasSubstr("expected at most the learning rate that it falls from")));
  EXPECT_THAT(faults("", {"train.plateau.metric=mse", "train.schedule.warmup_steps=9"}), IsEmpty());
  EXPECT_THAT(faults("", {"train.plateau.min_lr=.01", "train.schedule.name=cosine"}), IsEmpty());
  EXPECT_THAT(faults("", {"evaluate.checkpoint=best", "checkpoint.best=none"}),
              ElementsAre(HasSubstr("expected a metric that decides the best one")));
  EXPECT_THAT(faults("", {"parallel.precision=bf16"}),
              ElementsAre(HasSubstr("expected exact bits only with fp32; set parallel.precision "
                                    "to fp32, or parallel.reduce to fast")));
  EXPECT_THAT(
      faults("", {"parallel.precision=tf32", "parallel.reduce=fast", "parallel.backend=mpi"}),
      ElementsAre(HasSubstr("expected reduced precision only on GPUs")));
  EXPECT_THAT(faults("", {"parallel.precision=bf16", "parallel.reduce=fast"}), IsEmpty());
  EXPECT_THAT(faults("", {"model.engine=torch", "model.form=ids"}),
              ElementsAre(AllOf(HasSubstr("got model.engine=torch with model.form=ids"),
                                HasSubstr("expected ids only with the fused engine"))));
  EXPECT_THAT(faults("", {"model.engine=fused", "parallel.backend=nccl"}), IsEmpty());
  EXPECT_THAT(faults("", {"model.engine=fused", "parallel.backend=nccl", "parallel.reduce=fast",
                          "parallel.precision=bf16"}),
              ElementsAre(AllOf(HasSubstr("got model.engine=fused with parallel.precision=bf16"),
                                HasSubstr("expected the fused engine only with fp32"))));
  for (const char* form : {"auto", "rows"})
    EXPECT_THAT(faults("", {"model.engine=torch", std::string("model.form=") + form,
                            "parallel.backend=nccl"}),
                IsEmpty());
  EXPECT_THAT(faults("", {"model.engine=fused", "model.form=ids", "parallel.backend=mpi"}),
              IsEmpty());
  EXPECT_THAT(faults("", {"train.optimizer.name=sgd", "train.optimizer.momentum=0.9"}), IsEmpty());
  EXPECT_THAT(faults("", {"data.validation.fraction=0", "checkpoint.best=none"}), IsEmpty());
}

TEST(Config, EffectiveConfigurationReadsBackEqual) {
  const std::vector<std::string> overrides = {"train.optimizer.lr=0.1",
                                              "train.optimizer.epsilon=1e-30",
                                              "data.target.clip=0.30000000000000004",
                                              "data.path='a: b # \"c\"'",
                                              "data.features.until=2020-08-01",
                                              "data.filter.positive=true",
                                              "data.filter.max_label=4.9",
                                              "data.repeats=mean",
                                              "evaluate.k=[3]",
                                              "evaluate.labels=[ratio>=0.5, top-1, 'ratio>=1e-3']",
                                              "train.seed=9007199254740993",
                                              "checkpoint.resume='null'",
                                              "run.dir=' spaced '"};
  const ConfigReading first = read("", overrides);
  ASSERT_THAT(first.faults, IsEmpty());
  const std::string text = to_yaml(first.config);
  const ConfigReading second = read_config(text, "other.yaml", {}, declared_models());
  EXPECT_THAT(second.faults, IsEmpty()) << text;
  EXPECT_EQ(to_yaml(second.config), text);
  EXPECT_EQ(to_json(second.config), to_json(first.config));
  EXPECT_EQ(second.config.train.optimizer.epsilon, 1e-30);
  EXPECT_EQ(second.config.data.target.clip, 0.30000000000000004);
  EXPECT_TRUE(second.config.data.filter.positive);
  EXPECT_EQ(second.config.data.filter.max_label, 4.9);
  EXPECT_EQ(second.config.data.repeats, Repeats::kMean);
  EXPECT_EQ(second.config.data.path, "a: b # \"c\"");
  EXPECT_EQ(second.config.train.seed, 9007199254740993);
  EXPECT_EQ(second.config.checkpoint.resume, "null");
  EXPECT_EQ(second.config.run.dir, " spaced ");
  EXPECT_THAT(text, HasSubstr("    lr: 0.1\n"));
  EXPECT_EQ(to_json(first.config)["train"]["optimizer"]["name"], "adam");
}

TEST(Config, EveryKeyIsDescribed) {
  EXPECT_THAT(
      describe_keys(declared_models()),
      HasSubstr("train.optimizer.lr: 0.001\n      a number >= 1e-37 and <= 3e+38; learning"));
}

}  // namespace
}  // namespace kt
