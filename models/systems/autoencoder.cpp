#include "models/systems/autoencoder.h"

#include <cmath>
#include <string>

#include "launch/base/errors.h"
#include "models/systems/means.h"

namespace kt {
namespace {

std::vector<OptionDeclaration> options() {
  return {
      word_option("input", "binary", {"binary", "ratio", "residual"},
                  "of a row: 1 from the threshold on, else 0; the label; or the label less the "
                  "means of users and videos, which the score adds again"),
      number_option("threshold", 1, {-1e30, 1e30}, "binary: the least label that is a positive"),
      word_option(
          "loss_over", "all", {"all", "shown"},
          "the outputs that have a loss: of all videos with rows, with target 0 where the user has "
          "no row, or of the user's rows alone (binary: a 0 among them is then read as -1)"),
      list_option("hidden", {256, 128, 256}, {1, 65536}, "widths of the hidden layers"),
      number_option("dropout", .3, {0, .99}, "probability of a zero in the first and the last"),
      number_option("input_dropout", 0, {0, .99},
                    "probability that a row of the history is not read in a step"),
  };
}

/// Glorot and Bengio's deviation, "Understanding the difficulty of training deep feedforward neural networks", 2010.
double glorot_deviation(int64_t in, int64_t out) {
  return std::sqrt(2 / static_cast<double>(in + out));
}

/// Those beside the graph's.
std::vector<ParameterSpec> arrays(const std::vector<int64_t>& hidden, const SystemInputs& inputs) {
  std::vector<ParameterSpec> all = {{.name = kEncoder,
                                     .kind = ParameterKind::kItemTable,
                                     .rows = inputs.items,
                                     .cols = hidden[0],
                                     .initializer = Initializer::kTruncatedNormal,
                                     .scale = glorot_deviation(inputs.items_with_rows, hidden[0])},
                                    {.name = kEncoderBias, .rows = 1, .cols = hidden[0]}};
  for (size_t k = 1; k < hidden.size(); ++k) {
    const std::string name = "hidden" + std::to_string(k);
    all.push_back({.name = name + ".weight",
                   .rows = hidden[k - 1],
                   .cols = hidden[k],
                   .initializer = Initializer::kUniform,
                   .scale = std::sqrt(6 / static_cast<double>(hidden[k - 1] + hidden[k]))});
    all.push_back({.name = name + ".bias", .rows = 1, .cols = hidden[k]});
  }
  return all;
}

System make(const OptionValues& values, const SystemInputs& inputs) {
  const std::string& input = values.word("input");
  const bool binary = input == "binary", shown = values.word("loss_over") == "shown";
  const std::vector<int64_t>& hidden = values.list("hidden");
  if (hidden.empty())
    user_error("model.hidden: got [], expected the width of one layer or more, as [64]");
  System system{.graph = {}, .objective = {}};
  Layers& m = system.graph;
  int output = m.dot(m.columns(Side::kUser, 0, hidden.back()),
                     m.item_table(kDecoder, inputs.items, hidden.back(),
                                  glorot_deviation(inputs.items_with_rows, hidden.back())));
  output = m.add(output, m.item_table(kDecoderBias, inputs.items, 1, 0));
  if (binary)
    system.objective = {.loss = Loss::kBce,
                        .target = TargetKind::kPositive,
                        .threshold = values.number("threshold")};
  else
    system.objective.order_alone = input == "ratio" && !shown;
  if (input == "residual") {
    system.means = additive_means_fit();
    m.add(output, add_means(m, inputs));
  }
  system.encoder = {.hidden = hidden,
                    .dropout = values.number("dropout"),
                    .input_dropout = values.number("input_dropout"),
                    .shown_alone = shown,
                    .signed_input = binary && shown,
                    .arrays = arrays(hidden, inputs)};
  return system;
}

}  // namespace

SystemEntry autoencoder_entry() {
  return {"autoencoder", "a network from a user's rows to all videos at once", options, make};
}

}  // namespace kt
