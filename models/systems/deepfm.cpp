#include "models/systems/deepfm.h"

#include "models/systems/common_options.h"
#include "models/systems/fields.h"
#include "models/systems/hidden_layers.h"

namespace kt {
namespace {

std::vector<OptionDeclaration> options() {
  std::vector<OptionDeclaration> all = {
      list_option("hidden", {64, 32}, {1, 65536}, "widths of the hidden layers"),
      number_option("dropout", .2, {0, .99}, "probability of a zero after each hidden layer")};
  add_field_options(all);
  add_objective_options(all, {});
  return all;
}

/// The sum of the dots of every two vectors: (|sum of v|^2 - sum of |v|^2) / 2.
int sum_of_dots(Layers& m, int vectors, int64_t width) {
  const int sum = m.fold(vectors, width);
  return m.scale(m.add(m.dot(sum, sum), m.scale(m.dot(vectors, vectors), -1)), .5);
}

System make(const OptionValues& values, const SystemInputs& inputs) {
  const int64_t width = values.whole("embedding");
  Layers m;
  const int fields = embed_fields(m, "", values, inputs, width);
  const int line = m.fold(embed_fields(m, "line_", values, inputs, 1), 1);
  std::vector<int> deep{fields};
  for (const int numbers : numbers_of_row(m, values, inputs)) deep.push_back(numbers);
  const int hidden =
      hidden_layers(m, "hidden", m.concat(deep), values.list("hidden"), values.number("dropout"));
  const int network = m.dense("output", hidden, 1, Initializer::kTargetMean);
  m.add(network, m.add(line, sum_of_dots(m, fields, width)));
  return {std::move(m), objective_of(values)};
}

}  // namespace

SystemEntry deepfm_entry() {
  return {"deepfm", "a line, dots of every two embeddings of a row's fields, and a network",
          options, make, field_columns};
}

}  // namespace kt
