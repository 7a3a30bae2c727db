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

}  // namespace

nlohmann::json to_json(const ProgressState& state) {
  return {{"step", state.step},
          {"updates", state.updates},
          {"pass_over", state.pass_over},
          {"bad_steps", state.bad_steps},
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

std::optional<double> value_of(const ValidationResult& result, SelectionMetric metric) {
  if (result.rows == 0) return std::nullopt;
  switch (metric) {
    case SelectionMetric::kNone:
      return std::nullopt;
    case SelectionMetric::kMse:
      return result.mse;
    case SelectionMetric::kMae:
      return result.mae;
    case SelectionMetric::kGauc:
      return result.gauc;
    case SelectionMetric::kXauc:
      return result.xauc;
  }
  return std::nullopt;
}

bool update_best(ProgressState::Best& best, SelectionMetric metric, std::optional<double> value,
                 int64_t step) {
  const bool smaller_is_better = metric == SelectionMetric::kMse || metric == SelectionMetric::kMae;
  if (value && (!best.value || (smaller_is_better ? *value < *best.value : *value > *best.value))) {
    best = {.value = value, .step = step, .epochs_since = 0};
    return true;
  }
  ++best.epochs_since;
  return false;
}

}  // namespace kt
