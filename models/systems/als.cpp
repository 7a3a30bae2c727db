#include "models/systems/als.h"

#include <cmath>

#include "launch/base/errors.h"
#include "models/systems/means.h"

namespace kt {
namespace {

std::vector<OptionDeclaration> options() {
  return {
      whole_option("embedding", 64, {1, 512}, "factors of a user and of a video"),
      number_option("regularization", .003, {1e-9, 1e9},
                    "of squared factors: those of a user or video, times n^frequency"),
      number_option("frequency", 1, {0, 4},
                    "n: the rows of the user or video and `unobserved` times the pairs it could "
                    "have; 0: all alike"),
      number_option("unobserved", .1, {0, 1e6}, "weight of a pair whose target is 0: not shown"),
      word_option("unobserved_pairs", "all", {"all", "unshown"},
                  "which pairs that weight is of: all, beside the weight of rows (iALS), or those "
                  "without rows alone (Hu, Koren and Volinsky)"),
      flag_option("exclude_block", false,
                  "pairs of a user and a video of the test table are no unobserved ones: it reads "
                  "which pairs are tested, never a label"),
      word_option("rows", "positive", {"positive", "shown"},
                  "rows that count: of the threshold and above, or all (those below have target 0 "
                  "with binary input); the others are pairs not shown"),
      number_option("threshold", 1, {-1e30, 1e30}, "the least label that is a positive"),
      word_option("input", "binary", {"binary", "ratio", "residual"},
                  "of a row: 1 from the threshold on, else 0; the label; or the label less the "
                  "means of users and videos, which the score adds again"),
      number_option("confidence.base", 1, {0, 1e6}, "weight of a row, whatever its label"),
      number_option("confidence.alpha", 0, {0, 1e6},
                    "weight of a row for each unit of its label (cut by data.target.clip)"),
      whole_option("block", 0, {0, 512},
                   "factors found at a time, the others held (iALS++); 0: all of them"),
  };
}

System make(const OptionValues& values, const SystemInputs& inputs) {
  const int64_t width = values.whole("embedding"), block = values.whole("block");
  if (block > width)
    user_error("model.block: got {}, expected at most model.embedding={}; set it to 0 for all",
               block, width);
  const double base = values.number("confidence.base"), alpha = values.number("confidence.alpha");
  if (base == 0 && alpha == 0)
    user_error(
        "model.confidence.base: got 0 with model.confidence.alpha=0, so no row has a weight; "
        "set one of them above 0");
  const std::string& input = values.word("input");
  // Of predictions .1 / sqrt(width) apart.
  const double deviation = .1 / std::sqrt(static_cast<double>(width));
  Layers m;
  const int user = m.user_table(kUserFactors, inputs.users, width, deviation);
  const int video = m.item_table(kVideoFactors, inputs.items, width, deviation);
  const int product = m.dot(user, video);
  const AlsFit fit{.regularization = values.number("regularization"),
                   .frequency = values.number("frequency"),
                   .unobserved = values.number("unobserved"),
                   .unshown_alone = values.word("unobserved_pairs") == "unshown",
                   .exclude_block = values.flag("exclude_block"),
                   .positives_alone = values.word("rows") == "positive",
                   .threshold = values.number("threshold"),
                   .base = base,
                   .alpha = alpha,
                   .block = block == 0 ? width : block};
  std::optional<MeansFit> means;
  if (input == "residual") {
    m.add(product, add_means(m, inputs));
    means = additive_means_fit();
  }
  Objective objective;
  if (input == "binary") {
    objective.target = TargetKind::kPositive;
    objective.threshold = fit.threshold;
  }
  return {.graph = std::move(m), .objective = objective, .means = means, .als = fit};
}

}  // namespace

SystemEntry als_entry() {
  return {"als", "factors by alternating least squares over all pairs, shown or not", options,
          make};
}

}  // namespace kt
