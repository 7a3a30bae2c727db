// What makes two runs one, and runs that were stored before a key existed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "io/config/identity.h"
#include "io/config/reader.h"
#include "io/config/writers.h"
#include "tests/support/declared_models.h"

namespace kt {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

ConfigReading read(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return read_config(text, "toy.yaml", overrides, declared_models());
}
Config config_of(const std::vector<std::string>& overrides) {
  const ConfigReading reading = read("", overrides);
  EXPECT_THAT(reading.faults, IsEmpty());
  return reading.config;
}

TEST(ConfigIdentity, HoldsWhatDecidesTheResult) {
  const auto of = [](const std::vector<std::string>& overrides) {
    const ConfigReading reading = read("", overrides);
    EXPECT_THAT(reading.faults, IsEmpty());
    return identity(reading.config, "abc");
  };
  const nlohmann::json base = of({});
  for (const char* free :
       {"data.path=x", "train.epochs=9", "train.max_steps=9", "parallel.threads=2",
        "checkpoint.every_steps=3", "run.dir=y", "evaluate.k=[1]", "log.every_steps=1",
        "parallel.timeout_s=5", "parallel.simd=avx2", "train.early_stop.patience=9",
        "evaluate.labels=[top-9]"})
    EXPECT_EQ(of({free}), base) << free;
  for (const char* bound :
       {"data.target.clip=5", "data.validation.fraction=.2", "train.seed=2",
        "train.global_batch=32", "train.optimizer.lr=.1", "parallel.reduce=fast",
        "train.early_stop.metric=mse", "data.features.until=2020-08-01", "model.engine=torch",
        "data.filter.positive=true", "data.filter.max_label=5",
        "data.filter.max_duration_ms=160000", "data.filter.video_type=normal",
        "data.filter.visibility=public", "data.repeats=sum", "model.form=ids",
        "train.plateau.metric=mse", "train.plateau.patience=9", "model.name=shallow"})
    EXPECT_NE(of({bound}), base) << bound;
  EXPECT_NE(identity(read("").config, "abd"), base);
}

TEST(ConfigIdentity, AScheduleAsLongAsTheRunBindsItsLength) {
  const auto of = [](const std::vector<std::string>& overrides) {
    return identity(read("train: {schedule: {name: cosine}}", overrides).config, "abc");
  };
  EXPECT_NE(of({}), of({"train.epochs=6"}));
  EXPECT_NE(of({}), of({"train.max_steps=6"}));
  EXPECT_EQ(of({"train.schedule.steps=10"}), of({"train.schedule.steps=10", "train.epochs=6"}));
}

TEST(ConfigIdentity, HoldsTheOptionsOfTheModel) {
  const auto of = [](const std::string& option) {
    return identity(config_of({"model.name=tower", option}), "abc");
  };
  const nlohmann::json base = of("model.embedding=16");
  EXPECT_EQ(base, identity(config_of({"model.name=tower"}), "abc"));
  EXPECT_EQ(base.at("model.hidden"), nlohmann::json({64, 32}));
  for (const char* option : {"model.embedding=8", "model.hidden=[64]", "model.dropout=0",
                             "model.loss=bce", "model.bias=false", "model.target.low=0"})
    EXPECT_NE(of(option), base) << option;
  EXPECT_FALSE(identity(config_of({"model.name=shallow"}), "abc").contains("model.embedding"));
}

TEST(ConfigIdentity, DifferencesAreReadable) {
  const nlohmann::json stored = identity(config_of({}), "abc");
  EXPECT_THAT(identity_differences(stored, stored, config_of({})), IsEmpty());
  const Config config = config_of({"train.seed=2"});
  nlohmann::json now = identity(config, "abd");
  now.erase("model.name");
  EXPECT_THAT(identity_differences(stored, now, config),
              ElementsAre("dataset: stored \"abc\", now \"abd\"",
                          "model.name: stored \"ncf\", now absent", "train.seed: stored 1, now 2"));
}

/// Differences from a run that was stored before there were the keys `unknown`.
std::vector<std::string> since(const std::vector<std::string>& unknown,
                               const std::vector<std::string>& stored,
                               const std::vector<std::string>& now) {
  nlohmann::json old = identity(config_of(stored), "abc");
  for (const std::string& key : unknown) EXPECT_EQ(old.erase(key), 1u) << key;
  return identity_differences(old, identity(config_of(now), "abc"), config_of(now));
}

TEST(ConfigIdentity, AKeyThatAStoredRunDoesNotKnowCountsAsItsDefault) {
  const std::vector<std::string> plateau{"train.plateau.metric", "train.plateau.factor",
                                         "train.plateau.patience", "train.plateau.min_lr"};
  EXPECT_THAT(since(plateau, {}, {}), IsEmpty());
  EXPECT_THAT(since(plateau, {}, {"train.plateau.factor=.3"}),
              ElementsAre("train.plateau.factor: stored none, so its default "
                          "0.5, now 0.3"));
  const std::string tower = "model.name=tower";
  EXPECT_THAT(since({"model.hidden", "model.bias"}, {tower}, {tower}), IsEmpty());
  EXPECT_THAT(since({"model.hidden", "model.bias"}, {tower}, {tower, "model.hidden=[8]"}),
              ElementsAre("model.hidden: stored none, so its default [64,32], "
                          "now [8]"));
  // What it knows is compared as ever.
  EXPECT_THAT(since(plateau, {tower, "model.embedding=4"}, {tower}),
              ElementsAre("model.embedding: stored 4, now 16"));
}

TEST(ConfigIdentity, AutoIsWhatTheRunTookInItsPlace) {
  for (const char* engine : {"model.engine=fused", "model.engine=torch"})
    EXPECT_THAT(since({"model.engine", "model.form"}, {}, {engine, "model.form=rows"}), IsEmpty());
}

TEST(ConfigIdentity, AKeyThatTheProgramDoesNotKnowStaysADifference) {
  const Config config = config_of({});
  const nlohmann::json now = identity(config, "abc");
  nlohmann::json newer = now;
  newer["train.ahead"] = 3;
  EXPECT_THAT(identity_differences(newer, now, config),
              ElementsAre("train.ahead: stored 3, now absent"));
}

TEST(ConfigIdentity, PatienceOfAnEarlyStopIsNoDifference) {
  const Config config = config_of({});
  const nlohmann::json now = identity(config, "abc");
  nlohmann::json older = now;
  older["train.early_stop.patience"] = 7;
  EXPECT_THAT(identity_differences(older, now, config), IsEmpty());
}

TEST(ConfigIdentity, WhatEveryRunStoresHasNoDefault) {
  const Config config = config_of({});
  const nlohmann::json now = identity(config, "abc");
  for (const nlohmann::json& damaged :
       {nlohmann::json(), nlohmann::json(5), nlohmann::json::array({1}), nlohmann::json::object()})
    EXPECT_THAT(identity_differences(damaged, now, config),
                ElementsAre("dataset: stored absent, now \"abc\"",
                            "model.name: stored absent, now \"ncf\""));
  // Neither do keys that only some runs store.
  const Config cosine = config_of({"train.schedule.name=cosine"});
  nlohmann::json old = identity(cosine, "abc");
  old.erase("train.epochs");
  EXPECT_THAT(identity_differences(old, identity(cosine, "abc"), cosine),
              ElementsAre("train.epochs: stored absent, now 5"));
}

TEST(ConfigIdentity, AStoredConfigurationHasTheDefaultsOfWhatItDoesNotKnow) {
  const Config config = config_of({"model.name=tower", "model.bias=false", "evaluate.k=[3]"});
  nlohmann::json stored = to_json(config);
  EXPECT_EQ(with_defaults(stored, config_of({"model.name=tower"})), stored);
  stored["evaluate"].erase("labels");
  stored["model"].erase("hidden");
  stored["train"].erase("plateau");
  EXPECT_EQ(with_defaults(stored, config_of({"model.name=tower", "model.hidden=[1]",
                                             "evaluate.labels=[top-1]"})),
            to_json(config));
}

}  // namespace
}  // namespace kt
