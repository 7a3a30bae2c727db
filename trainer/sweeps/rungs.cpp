#include "trainer/sweeps/rungs.h"

#include <algorithm>

namespace kt {

std::vector<int64_t> rung_epochs(const Search& search, int64_t epochs) {
  std::vector<int64_t> rungs;
  for (int64_t next = search.min_epochs; next < epochs; next *= search.eta) rungs.push_back(next);
  rungs.push_back(epochs);
  return rungs;
}

std::vector<size_t> promoted(std::span<const RungResult> rung, const SweepObjective& objective,
                             int64_t eta) {
  std::vector<size_t> ranked;
  for (size_t k = 0; k < rung.size(); ++k)
    if (rung[k].objective) ranked.push_back(k);
  std::ranges::sort(ranked, [&](size_t a, size_t b) {
    const double of_a = *rung[a].objective, of_b = *rung[b].objective;
    return of_a == of_b ? rung[a].hash < rung[b].hash : objective.better(of_a, of_b);
  });
  const size_t most = std::max<size_t>(1, rung.size() / static_cast<size_t>(eta));
  ranked.resize(std::min(ranked.size(), most));
  return ranked;
}

}  // namespace kt
