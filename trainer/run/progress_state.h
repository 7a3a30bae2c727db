#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "io/config/config.h"
#include "trainer/evaluation/metrics/validation_metrics.h"
#include "trainer/steps/step_outcome.h"

namespace kt {

/// How far a run is, beside its weights: what a checkpoint stores as `state`, the same on every rank. Numbers
/// survive the JSON bit for bit (shortest round-trip form).
struct ProgressState {
  int64_t step = 0;       ///< steps done, passed over and empty ones too
  int64_t updates = 0;    ///< updates made: the optimizer's step
  int64_t pass_over = 0;  ///< steps before this one are passed over after a rewind
  int64_t bad_steps = 0;

  /// What tells a divergence. A checkpoint is known to be good once the first step from its weights was sound and of a
  /// usual loss; the newest good one is kept until there is a newer, and a rewind goes back to it.
  struct Health {
    int64_t bad_in_a_row = 0;      ///< steps that were not sound since the last that was
    int64_t good_checkpoint = -1;  ///< step of the newest good one
    double usual_loss = 0;  ///< sum over `usual_samples`: those of steps whose loss was usual
    int64_t usual_samples = 0;
  };
  Health health;

  /// The last sound steps, oldest first, where `train.outliers` looks at them.
  struct Recent {
    std::vector<double> losses;  ///< means over the samples
    std::vector<double> norms;   ///< of the gradients
  };
  Recent recent;

  double epoch_loss = 0;  ///< sum over the samples of the current epoch so far
  int64_t epoch_samples = 0;
  double epoch_seconds = 0;
  double wall_seconds = 0;

  /// The best validation value so far, of `checkpoint.best` and of `train.early_stop.metric`.
  struct Best {
    std::optional<double> value;
    int64_t step = -1;
    int64_t epochs_since = 0;
    std::string metric;  ///< of `value`; empty when it was stored without
  };
  Best best;
  Best early_stop;
  bool stopped_early = false;
  Best plateau;  ///< of `train.plateau.metric`; its epochs are counted anew when the rate falls
  double rate_factor = 1;  ///< what plateaus have made of the learning rate

  /// Of the interval of the log that is not told yet, so that its line says the same after a resume.
  struct Interval {
    double loss = 0;  ///< sum over the samples
    int64_t samples = 0;
    double norms = 0, norm_max = 0;  ///< sum and largest of the gradients' norms
    int64_t updates = 0;
    double seconds = 0;  ///< as of the checkpoint
  };
  Interval interval;

  nlohmann::json epochs = nlohmann::json::array();        ///< finished epochs, as in result.json
  nlohmann::json resumed_from = nlohmann::json::array();  ///< steps this run was resumed at
};

/// Whether a step's loss, a sum over `samples`, is at most a thousand times the mean so far; then it is added to it.
bool is_usual_loss(ProgressState::Health& health, double loss, int64_t samples);

/// What the next step, of so many samples, may not be above.
StepLimits limits_of(const ProgressState::Recent& recent, const Config::Train::Outliers& outliers,
                     int64_t samples);
/// Takes the outcome of a sound step of so many samples.
void remember(ProgressState::Recent& recent, const StepOutcome& outcome, int64_t samples,
              int64_t window);

nlohmann::json to_json(const ProgressState& state);
/// Throws: UserError when a key is absent or holds what it cannot; `health`, `interval`, `plateau`, `recent` may be absent.
ProgressState progress_from_json(const nlohmann::json& json);

/// Errors are better when smaller; the other metrics are of an order alone.
bool is_error(SelectionMetric metric);
/// The validation result's value of a metric; absent where it is not defined.
std::optional<double> value_of(const ValidationResult& result, SelectionMetric metric);
/// Takes a new value; whether it is the best so far.
bool update_best(ProgressState::Best& best, SelectionMetric metric, std::optional<double> value,
                 int64_t step);

}  // namespace kt
