#include "trainer/evaluation/history_scores.h"

#include "trainer/run/history.h"

namespace kt {

HistoryScores::HistoryScores(const Problem& problem, const Parameters& parameters,
                             Communicator& comm)
    : targets_(history_targets(problem, parameters, comm)),
      columns_(problem.system.history_weights->cols),
      weights_(
          parameters.gather_items(parameters.find(problem.system.history_weights->name), comm)) {}

float HistoryScores::of(int64_t row, int32_t item) const {
  const float* weights = weights_.data() + item * columns_;
  double sum = 0;
  for (int64_t k = targets_.begin[row]; k < targets_.begin[row + 1]; ++k)
    sum += static_cast<double>(targets_.value[k]) * static_cast<double>(weights[targets_.item[k]]);
  return static_cast<float>(sum);
}

}  // namespace kt
