#include "trainer/run/progress_state.h"

#include <gmock/gmock.h>

#include <bit>
#include <cmath>
#include <limits>

#include "launch/base/errors.h"
#include "launch/base/random.h"

namespace kt {
namespace {

uint64_t bits(double value) { return std::bit_cast<uint64_t>(value); }

TEST(ProgressState, SurvivesJsonBitForBit) {
  std::vector<double> values{0.,     -0.,
                             1. / 3, .1,
                             1e-320, std::numeric_limits<double>::denorm_min(),
                             1e308,  std::numeric_limits<double>::max()};
  for (uint64_t k = 0; values.size() < 2000; ++k)
    if (const auto value = std::bit_cast<double>(mix(k)); std::isfinite(value))
      values.push_back(value);
  for (const double value : values) {
    ProgressState state{.step = (int64_t{1} << 53) + 1,
                        .updates = 2,
                        .pass_over = 3,
                        .bad_steps = 4,
                        .epoch_loss = value,
                        .epoch_samples = 5,
                        .epoch_seconds = value / 3,
                        .wall_seconds = value / 7,
                        .best = {.value = value, .step = 6, .epochs_since = 7, .metric = "mae"},
                        .early_stop = {.step = -1, .epochs_since = 8},
                        .stopped_early = true,
                        .interval = {.loss = value, .samples = 9, .seconds = value / 5},
                        .epochs = {{{"epoch", 1}, {"train_loss", value}}},
                        .resumed_from = {10, 20}};
    const ProgressState read = progress_from_json(nlohmann::json::parse(to_json(state).dump()));
    ASSERT_EQ(bits(read.epoch_loss), bits(value)) << value;
    ASSERT_EQ(bits(read.epoch_seconds), bits(value / 3));
    ASSERT_EQ(bits(read.wall_seconds), bits(value / 7));
    ASSERT_EQ(bits(read.best.value.value()), bits(value));
    ASSERT_EQ(bits(read.epochs.at(0).at("train_loss").get<double>()), bits(value));
    ASSERT_FALSE(read.early_stop.value.has_value());
    ASSERT_EQ(read.step, (int64_t{1} << 53) + 1);
    ASSERT_EQ(to_json(read), to_json(state));
  }
}

TEST(ProgressState, OneKeyMissingIsRefused) {
  const nlohmann::json whole = to_json(ProgressState{});
  for (const auto& [key, value] : whole.items()) {
    // None in checkpoints of before.
    if (key == "interval" || key == "plateau" || key == "rate_factor" || key == "recent") continue;
    nlohmann::json part = whole;
    part.erase(key);
    if (key == "health") {  // earlier builds know none
      EXPECT_EQ(progress_from_json(part).health.good_checkpoint, -1);
      continue;
    }
    try {
      progress_from_json(part);
      ADD_FAILURE() << key;
    } catch (const UserError& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr("'" + key + "'"));
      EXPECT_THAT(error.what(), ::testing::HasSubstr("remove that checkpoint"));
    }
  }
}

TEST(ProgressState, ALossAThousandTimesTheUsualIsNoneAndDoesNotCount) {
  ProgressState::Health health;
  EXPECT_TRUE(is_usual_loss(health, 8e9, 4));  // nothing to compare with
  health = {};
  EXPECT_TRUE(is_usual_loss(health, 20, 10));
  EXPECT_TRUE(is_usual_loss(health, 1900, 1));
  health = {.usual_loss = 20, .usual_samples = 10};
  EXPECT_FALSE(is_usual_loss(health, 2001, 1));
  EXPECT_FALSE(is_usual_loss(health, 1e30, 1));
  EXPECT_EQ(health.usual_loss, 20);
  EXPECT_EQ(health.usual_samples, 10);
  ProgressState state{.health = {.bad_in_a_row = 3, .good_checkpoint = 40, .usual_loss = .1}};
  EXPECT_EQ(to_json(progress_from_json(to_json(state))), to_json(state));
}

TEST(ProgressState, OfBeforeThereWereIntervalsAndMetrics) {
  nlohmann::json old = to_json(ProgressState{.step = 7, .best = {.value = 1, .step = 7}});
  old.erase("interval");
  old["best"].erase("metric");
  EXPECT_EQ(progress_from_json(old).interval.samples, 0);
  EXPECT_EQ(progress_from_json(old).best.metric, "");
}

TEST(ProgressState, AValueOfAnotherKindIsRefused) {
  const nlohmann::json whole = to_json(ProgressState{});
  const std::vector<nlohmann::json> kinds{nlohmann::json(),
                                          "text",
                                          -2,
                                          1.5,
                                          1e300,
                                          true,
                                          ~uint64_t{0},
                                          nlohmann::json::array({1}),
                                          nlohmann::json::object()};
  const auto read = [&](const nlohmann::json& json) {
    try {
      // Whatever is read can be stored again.
      progress_from_json(json).resumed_from.push_back(1);
    } catch (const UserError& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr("remove that checkpoint"));
      return false;
    }
    return true;
  };
  for (const nlohmann::json& kind : kinds) {
    EXPECT_FALSE(read(kind)) << kind;
    for (const auto& [key, value] : whole.items()) {
      nlohmann::json changed = whole;
      changed[key] = kind;
      const bool is_read = read(changed);
      if (value.is_number_integer() || value.is_object()) {
        EXPECT_FALSE(is_read) << key << " " << kind;
      }
      for (const auto& [inner, number] : value.items()) {
        if (!value.is_object()) continue;
        nlohmann::json within = whole;
        within[key][inner] = kind;
        read(within);
      }
    }
  }
}

TEST(ProgressState, TheBestIsTheSmallestErrorOrTheLargestShare) {
  const ValidationResult result{.rows = 3,
                                .mse = 1,
                                .mae = 2,
                                .rmse = 3,
                                .mse_clipped = .7,
                                .mae_clipped = .8,
                                .gauc = .4,
                                .xauc = {}};
  EXPECT_EQ(value_of(result, SelectionMetric::kMse), 1);
  EXPECT_EQ(value_of(result, SelectionMetric::kMae), 2);
  EXPECT_EQ(value_of(result, SelectionMetric::kMseClipped), .7);
  EXPECT_EQ(value_of(result, SelectionMetric::kMaeClipped), .8);
  EXPECT_EQ(value_of(result, SelectionMetric::kGauc), .4);
  EXPECT_EQ(value_of(result, SelectionMetric::kXauc), std::nullopt);
  EXPECT_EQ(value_of(result, SelectionMetric::kNone), std::nullopt);
  EXPECT_EQ(value_of({}, SelectionMetric::kMse), std::nullopt);  // no rows

  ProgressState::Best error, share;
  EXPECT_TRUE(update_best(error, SelectionMetric::kMse, .5, 10));
  EXPECT_FALSE(update_best(error, SelectionMetric::kMse, .5, 20));  // not better
  EXPECT_FALSE(update_best(error, SelectionMetric::kMse, std::nullopt, 30));
  EXPECT_EQ(error.epochs_since, 2);
  EXPECT_TRUE(update_best(error, SelectionMetric::kMse, .4, 40));
  EXPECT_EQ(error.step, 40);
  EXPECT_EQ(error.metric, "mse");
  EXPECT_EQ(error.epochs_since, 0);
  EXPECT_TRUE(update_best(share, SelectionMetric::kGauc, .5, 10));
  EXPECT_FALSE(update_best(share, SelectionMetric::kGauc, .4, 20));
  EXPECT_TRUE(update_best(share, SelectionMetric::kGauc, .6, 30));
  ProgressState::Best clipped;
  EXPECT_TRUE(update_best(clipped, SelectionMetric::kMseClipped, .5, 10));
  EXPECT_FALSE(update_best(clipped, SelectionMetric::kMseClipped, .6, 20));
}

TEST(Outliers, AreSoManyDeviationsAboveTheLastSoundSteps) {
  ProgressState::Recent recent;
  const Config::Train::Outliers outliers{.loss = 3, .gradient_norm = 0, .window = 4};
  for (const double loss : {100., 2., 4., 2.}) {
    EXPECT_EQ(limits_of(recent, outliers, 5).loss, HUGE_VAL);  // not enough steps yet
    remember(recent, {.loss = 10 * loss, .gradient_norm = 1}, 10, outliers.window);
  }
  remember(recent, {.loss = 40, .gradient_norm = 1}, 10, outliers.window);  // 100 is forgotten
  // 2, 4, 2, 4 a sample: mean 3, deviation 1.
  const StepLimits limits = limits_of(recent, outliers, 5);
  EXPECT_EQ(limits.loss, 5 * (3 + 3 * 1));
  EXPECT_EQ(limits.gradient_norm, HUGE_VAL);  // off
  EXPECT_TRUE(is_sound({.loss = 30, .gradient_norm = 1}, 0, limits));
  EXPECT_FALSE(is_sound({.loss = 30.1, .gradient_norm = 1}, 0, limits));
}

}  // namespace
}  // namespace kt
