#include "models/systems/lightgcn.h"

#include "models/systems/common_options.h"
#include "models/systems/mf.h"

namespace kt {
namespace {

std::vector<OptionDeclaration> options() {
  std::vector<OptionDeclaration> all = mf_options({});
  all.push_back(whole_option("layers", 3, {0, 16},
                             "of neighbours that embeddings are means over; 0: none, as mf"));
  all.push_back(word_option("edges.rows", "shown", {"shown", "positive"},
                            "pairs of the graph: all of the training rows, or those of the "
                            "threshold and above; one of several rows once, by their mean"));
  all.push_back(number_option("edges.threshold", 1, {-1e30, 1e30},
                              "positive: the least label (cut by data.target.clip) of an edge"));
  return all;
}

System make(const OptionValues& values, const SystemInputs& inputs) {
  const Objective objective = objective_of(values);
  Layers m = mf_graph(values, inputs, objective);
  const auto layer0_of = [&](const char* table) {
    ParameterSpec spec = m.computed(table);
    spec.name += "_layer0";
    return spec;
  };
  PropagationFit fit{
      .layers = values.whole("layers"),
      .positives_alone = values.word("edges.rows") == "positive",
      .threshold = values.number("edges.threshold"),
      .layer0 = {layer0_of(PropagationFit::kUsers), layer0_of(PropagationFit::kVideos)}};
  return {.graph = std::move(m), .objective = objective, .propagation = std::move(fit)};
}

}  // namespace

SystemEntry lightgcn_entry() {
  return {"lightgcn", "factors averaged over layers of neighbours, then as mf", options, make};
}

}  // namespace kt
