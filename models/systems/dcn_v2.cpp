#include "models/systems/dcn_v2.h"

#include "models/systems/common_options.h"
#include "models/systems/fields.h"
#include "models/systems/hidden_layers.h"

namespace kt {
namespace {

std::vector<OptionDeclaration> options() {
  std::vector<OptionDeclaration> all = {
      whole_option("cross.layers", 2, {1, 16}, "cross layers"),
      whole_option("cross.rank", 32, {0, 4096},
                   "of their matrices, as a product of two; 0: whole matrices"),
      word_option("cross.place", "beside", {"beside", "before"},
                  "where cross layers stand: beside the hidden layers, or before them"),
      list_option("hidden", {64, 32}, {1, 65536}, "widths of the hidden layers"),
      number_option("dropout", .2, {0, .99}, "probability of a zero after each hidden layer")};
  add_field_options(all);
  add_objective_options(all, {});
  return all;
}

/// x + x0 * (W x + b).
int cross_layer(Layers& m, const std::string& name, int x0, int x, int64_t rank) {
  const int low = rank > 0 ? m.product(name + ".low", x, rank) : x;
  return m.add(m.multiply(x0, m.dense(name, low, m.width(x0))), x);
}

System make(const OptionValues& values, const SystemInputs& inputs) {
  Layers m;
  std::vector<int> parts{embed_fields(m, "", values, inputs, values.whole("embedding"))};
  for (const int numbers : numbers_of_row(m, values, inputs)) parts.push_back(numbers);
  const int x0 = m.concat(parts);
  int x = x0;
  for (int64_t layer = 1; layer <= values.whole("cross.layers"); ++layer)
    x = cross_layer(m, "cross" + std::to_string(layer), x0, x, values.whole("cross.rank"));
  const bool beside = values.word("cross.place") == "beside";
  const int hidden =
      hidden_layers(m, "hidden", beside ? x0 : x, values.list("hidden"), values.number("dropout"));
  m.dense("output", beside ? m.concat({x, hidden}) : hidden, 1, Initializer::kTargetMean);
  return {std::move(m), objective_of(values)};
}

}  // namespace

SystemEntry dcn_v2_entry() {
  return {"dcn_v2", "cross layers over the embeddings of a row's fields, and a network", options,
          make, field_columns};
}

}  // namespace kt
