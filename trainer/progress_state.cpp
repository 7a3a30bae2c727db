#include "trainer/progress_state.h"

#include "launch/errors.h"

namespace kt {
namespace {

nlohmann::json to_json(const ProgressState::Best& best) {
  return {{"value", best.value ? nlohmann::json(*best.value) : nlohmann::json()},
          {"step", best.step},
          {"epochs_since", best.epochs_since}};
}

ProgressState::Best best_from_json(const nlohmann::json& json) {
  ProgressState::Best best{.step = json.at("step"), .epochs_since = json.at("epochs_since")};
  if (!json.at("value").is_null()) best.value = json.at("value").get<double>();
  return best;
}

nlohmann::json to_json(const ProgressState::Health& health) {
  return {{"bad_in_a_row", health.bad_in_a_row},
          {"good_checkpoint", health.good_checkpoint},
          {"usual_loss", health.usual_loss},
          {"usual_samples", health.usual_samples}};
}

ProgressState::Health health_from_json(const nlohmann::json& json) {
  return {.bad_in_a_row = json.at("bad_in_a_row"),
          .good_checkpoint = json.at("good_checkpoint"),
          .usual_loss = json.at("usual_loss"),
          .usual_samples = json.at("usual_samples")};
}

}  // namespace

nlohmann::json to_json(const ProgressState& state) {
  return {{"step", state.step},
          {"updates", state.updates},
          {"pass_over", state.pass_over},
          {"bad_steps", state.bad_steps},
          {"health", to_json(state.health)},
          {"epoch_loss", state.epoch_loss},
          {"epoch_samples", state.epoch_samples},
          {"epoch_seconds", state.epoch_seconds},
          {"wall_seconds", state.wall_seconds},
          {"best", to_json(state.best)},
          {"early_stop", to_json(state.early_stop)},
          {"stopped_early", state.stopped_early},
          {"epochs", state.epochs},
          {"resumed_from", state.resumed_from}};
}

ProgressState progress_from_json(const nlohmann::json& json) try {
  return {.step = json.at("step"),
          .updates = json.at("updates"),
          .pass_over = json.at("pass_over"),
          .bad_steps = json.at("bad_steps"),
          .health = json.contains("health") ? health_from_json(json.at("health"))
                                            : ProgressState::Health{},
          .epoch_loss = json.at("epoch_loss"),
          .epoch_samples = json.at("epoch_samples"),
          .epoch_seconds = json.at("epoch_seconds"),
          .wall_seconds = json.at("wall_seconds"),
          .best = best_from_json(json.at("best")),
          .early_stop = best_from_json(json.at("early_stop")),
          .stopped_early = json.at("stopped_early"),
          .epochs = json.at("epochs"),
          .resumed_from = json.at("resumed_from")};
} catch (const nlohmann::json::exception& error) {
  user_error("the checkpoint's state is not one of this program: {}; remove that checkpoint",
             error.what());
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
  const bool smaller_is_better =
      metric != SelectionMetric::kGauc && metric != SelectionMetric::kXauc;
  if (value && (!best.value || (smaller_is_better ? *value < *best.value : *value > *best.value))) {
    best = {.value = value, .step = step, .epochs_since = 0};
    return true;
  }
  ++best.epochs_since;
  return false;
}

}  // namespace kt
