#pragma once

#include <string>

#include "trainer/evaluation/metrics/metrics.h"

namespace kt {

/// What an evaluation was of.
struct EvaluationTitle {
  std::string dataset;     ///< its name or path
  std::string checkpoint;  ///< e.g. "step 1200 (best)"; empty leaves the line out
  bool synthetic = false;  ///< adds a line that the figures are not those of the real data
};

/// The result for people: value and chance of every metric by label and K, skipped users and notes,
/// in 80 columns. Ends in a newline.
std::string evaluation_table(const EvaluationTitle& title, const EvaluationResult& result);

}  // namespace kt
