#include "trainer/evaluation/tree_scores.h"

#include <algorithm>

namespace kt {
namespace {

Trees trees_of(const Problem& problem, const Parameters& parameters, int64_t columns) {
  return {problem.system.trees->shape, parameters.find(TreesFit::kSplits).value,
          parameters.find(TreesFit::kLeafValues).value, columns,
          problem.config.run.dir + ": " + TreesFit::kSplits};
}

}  // namespace

TreeColumns::TreeColumns(const Problem& problem)
    : columns_(problem.columns),
      users_(width_of(problem.described, Side::kUser)),
      items_(width_of(problem.described, Side::kItem)),
      rows_(width_of(problem.described, Side::kRow)) {}

void TreeColumns::write(int64_t user_row, int64_t item, const float* own, float* out) const {
  out = std::copy_n(columns_.users.data() + user_row * users_, users_, out);
  out = std::copy_n(columns_.items.data() + item * items_, items_, out);
  std::copy_n(own, rows_, out);
}

TreeScores::TreeScores(const Problem& problem, const Parameters& parameters)
    : problem_(problem),
      columns_(problem),
      trees_(trees_of(problem, parameters, columns_.width())) {}

std::vector<float> TreeScores::of(std::span<const int32_t> users,
                                  std::span<const int32_t> items) const {
  const std::vector<float> own = problem_.columns.of_pairs(users, items);
  const int64_t width = std::ssize(own) / std::ssize(users);
  std::vector<float> row(columns_.width()), scores(users.size());
  for (size_t k = 0; k < users.size(); ++k) {
    columns_.write(users[k], items[k], own.data() + k * width, row.data());
    scores[k] = static_cast<float>(trees_.score(row.data()));
  }
  return scores;
}

}  // namespace kt
