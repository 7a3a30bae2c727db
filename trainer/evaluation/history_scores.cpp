#include "trainer/evaluation/history_scores.h"

#include <algorithm>

#include "trainer/run/history.h"

namespace kt {

HistoryScores::HistoryScores(const Problem& problem, const Parameters& parameters,
                             Communicator& comm)
    : targets_(history_matrix(problem, parameters, comm)),
      columns_(problem.system.history_weights->cols),
      weights_(
          parameters.gather_items(parameters.find(problem.system.history_weights->name), comm)) {}

std::vector<float> HistoryScores::of(std::span<const int32_t> users,
                                     std::span<const int32_t> items) const {
  constexpr size_t kAtOnce = 4;  // sums that do not wait for one another
  std::vector<float> scores(users.size());
  for (size_t begin = 0, end = 0; begin < users.size(); begin = end) {
    while (end < std::min(begin + kAtOnce, users.size()) && users[end] == users[begin]) ++end;
    const float* weights[kAtOnce];
    for (size_t c = 0; c < kAtOnce; ++c)
      weights[c] = weights_.data() + items[std::min(begin + c, end - 1)] * columns_;
    double sums[kAtOnce] = {};
    const int32_t user = users[begin];
    for (int64_t k = targets_.begin[user]; k < targets_.begin[user + 1]; ++k)
      for (size_t c = 0; c < kAtOnce; ++c)
        sums[c] += static_cast<double>(targets_.value[k]) *
                   static_cast<double>(weights[c][targets_.item[k]]);
    for (size_t c = 0; c < end - begin; ++c) scores[begin + c] = static_cast<float>(sums[c]);
  }
  return scores;
}

}  // namespace kt
