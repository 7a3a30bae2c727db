#include "trainer/run/progress_state.h"

#include "io/files/json_text.h"
#include "launch/base/errors.h"

namespace kt {
namespace {

[[noreturn]] void refuse(const std::string& what) {
  user_error("the checkpoint's state is not one of this program: {}; remove that checkpoint", what);
}

int64_t count_at(const nlohmann::json& object, const char* key, int64_t least = 0) {
  const int64_t value = whole_number(object.at(key));
  if (value < least) refuse(fmt::format("'{}' is {}, expected at least {}", key, value, least));
  return value;
}

nlohmann::json list(const nlohmann::json& object, const char* key) {
  const nlohmann::json& value = object.at(key);
  if (!value.is_array()) refuse(fmt::format("'{}' is {}, expected a list", key, to_text(value)));
  return value;
}

nlohmann::json json_of(const ProgressState::Best& best) {
  return {{"value", best.value ? nlohmann::json(*best.value) : nlohmann::json()},
          {"step", best.step},
          {"epochs_since", best.epochs_since},
          {"metric", best.metric}};
}

ProgressState::Best best_from_json(const nlohmann::json& object) {
  ProgressState::Best best{.step = count_at(object, "step", -1),
                           .epochs_since = count_at(object, "epochs_since"),
                           .metric = object.value("metric", "")};
  if (!object.at("value").is_null()) best.value = object.at("value").get<double>();
  return best;
}

nlohmann::json json_of(const ProgressState::Health& health) {
  return {{"bad_in_a_row", health.bad_in_a_row},
          {"good_checkpoint", health.good_checkpoint},
          {"usual_loss", health.usual_loss},
          {"usual_samples", health.usual_samples}};
}

/// None in checkpoints of before there was one.
ProgressState::Health health_from_json(const nlohmann::json& state) {
  if (!state.contains("health")) return {};
  const nlohmann::json& object = state.at("health");
  return {.bad_in_a_row = count_at(object, "bad_in_a_row"),
          .good_checkpoint = count_at(object, "good_checkpoint", -1),
          .usual_loss = object.at("usual_loss"),
          .usual_samples = count_at(object, "usual_samples")};
}

/// None in checkpoints of before there was one: the first interval is then of its steps since.
ProgressState::Interval interval_from_json(const nlohmann::json& state) {
  if (!state.contains("interval")) return {};
  const nlohmann::json& object = state.at("interval");
  return {.loss = object.at("loss"),
          .samples = count_at(object, "samples"),
          .norms = object.at("norms"),
          .norm_max = object.at("norm_max"),
          .updates = count_at(object, "updates"),
          .seconds = object.at("seconds")};
}

/// None in checkpoints of before there was one.
ProgressState::Recent recent_from_json(const nlohmann::json& state) {
  if (!state.contains("recent")) return {};
  const nlohmann::json& object = state.at("recent");
  return {.losses = list(object, "losses"), .norms = list(object, "norms")};
}

/// So many deviations above the mean.
double limit_of(const std::vector<double>& values, double deviations, int64_t window) {
  if (deviations == 0 || std::ssize(values) < window) return HUGE_VAL;
  const double n = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.) / n;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return mean + deviations * std::sqrt(squares / n);
}

}  // namespace

StepLimits limits_of(const ProgressState::Recent& recent, const Config::Train::Outliers& outliers,
                     int64_t samples) {
  return {.loss = limit_of(recent.losses, outliers.loss, outliers.window) *
                  static_cast<double>(samples),
          .gradient_norm = limit_of(recent.norms, outliers.gradient_norm, outliers.window)};
}

void remember(ProgressState::Recent& recent, const StepOutcome& outcome, int64_t samples,
              int64_t window) {
  const auto take = [window](std::vector<double>& values, double value) {
    values.push_back(value);
    if (std::ssize(values) > window) values.erase(values.begin());
  };
  take(recent.losses, outcome.loss / static_cast<double>(samples));
  take(recent.norms, outcome.gradient_norm);
}

nlohmann::json to_json(const ProgressState& state) {
  return {{"step", state.step},
          {"updates", state.updates},
          {"pass_over", state.pass_over},
          {"bad_steps", state.bad_steps},
          {"health", json_of(state.health)},
          {"recent", {{"losses", state.recent.losses}, {"norms", state.recent.norms}}},
          {"epoch_loss", state.epoch_loss},
          {"epoch_samples", state.epoch_samples},
          {"epoch_seconds", state.epoch_seconds},
          {"wall_seconds", state.wall_seconds},
          {"best", json_of(state.best)},
          {"early_stop", json_of(state.early_stop)},
          {"stopped_early", state.stopped_early},
          {"plateau", json_of(state.plateau)},
          {"rate_factor", state.rate_factor},
          {"interval",
           {{"loss", state.interval.loss},
            {"samples", state.interval.samples},
            {"norms", state.interval.norms},
            {"norm_max", state.interval.norm_max},
            {"updates", state.interval.updates},
            {"seconds", state.interval.seconds}}},
          {"epochs", state.epochs},
          {"resumed_from", state.resumed_from}};
}

ProgressState progress_from_json(const nlohmann::json& json) try {
  return {.step = count_at(json, "step"),
          .updates = count_at(json, "updates"),
          .pass_over = count_at(json, "pass_over"),
          .bad_steps = count_at(json, "bad_steps"),
          .health = health_from_json(json),
          .recent = recent_from_json(json),
          .epoch_loss = json.at("epoch_loss"),
          .epoch_samples = count_at(json, "epoch_samples"),
          .epoch_seconds = json.at("epoch_seconds"),
          .wall_seconds = json.at("wall_seconds"),
          .best = best_from_json(json.at("best")),
          .early_stop = best_from_json(json.at("early_stop")),
          .stopped_early = json.at("stopped_early"),
          .plateau =
              json.contains("plateau") ? best_from_json(json.at("plateau")) : ProgressState::Best{},
          .rate_factor = json.value("rate_factor", 1.),
          .interval = interval_from_json(json),
          .epochs = list(json, "epochs"),
          .resumed_from = list(json, "resumed_from")};
} catch (const nlohmann::json::exception& error) {
  refuse(error.what());
}

bool is_usual_loss(ProgressState::Health& health, double loss, int64_t samples) {
  constexpr double kFactor = 1000;
  const double limit = kFactor * health.usual_loss * static_cast<double>(samples);
  if (health.usual_samples > 0 && loss * static_cast<double>(health.usual_samples) > limit)
    return false;
  health.usual_loss += loss;
  health.usual_samples += samples;
  return true;
}

bool is_error(SelectionMetric metric) {
  return metric != SelectionMetric::kNone && metric != SelectionMetric::kGauc &&
         metric != SelectionMetric::kXauc;
}

std::optional<double> value_of(const ValidationResult& result, SelectionMetric metric) {
  if (result.rows == 0) return std::nullopt;
  switch (metric) {
    case SelectionMetric::kNone:
      return std::nullopt;
    case SelectionMetric::kMse:
      return result.mse;
    case SelectionMetric::kMae:
      return result.mae;
    case SelectionMetric::kMseClipped:
      return result.mse_clipped;
    case SelectionMetric::kMaeClipped:
      return result.mae_clipped;
    case SelectionMetric::kGauc:
      return result.gauc;
    case SelectionMetric::kXauc:
      return result.xauc;
  }
  return std::nullopt;
}

bool update_best(ProgressState::Best& best, SelectionMetric metric, std::optional<double> value,
                 int64_t step) {
  const bool smaller_is_better = is_error(metric);
  if (value && (!best.value || (smaller_is_better ? *value < *best.value : *value > *best.value))) {
    best = {
        .value = value, .step = step, .epochs_since = 0, .metric = std::string(name_of(metric))};
    return true;
  }
  ++best.epochs_since;
  return false;
}

}  // namespace kt
