#include "models/systems/dlrm.h"

#include "launch/base/errors.h"
#include "models/systems/common_options.h"
#include "models/systems/fields.h"
#include "models/systems/hidden_layers.h"

namespace kt {
namespace {

std::vector<OptionDeclaration> options() {
  std::vector<OptionDeclaration> all = {
      list_option("bottom", {32}, {1, 65536},
                  "widths of the hidden layers over numbers, which end in a layer of the "
                  "embeddings' width"),
      list_option("top", {64, 32}, {1, 65536}, "widths of the hidden layers over the dots"),
      flag_option("embeddings_to_top", true,
                  "the top layers read all embeddings beside the dots; false: what is made of the "
                  "numbers alone, as published"),
      number_option("dropout", .2, {0, .99}, "probability of a zero after each layer of the top")};
  add_field_options(all);
  add_objective_options(all, {});
  return all;
}

System make(const OptionValues& values, const SystemInputs& inputs) {
  const int64_t width = values.whole("embedding");
  Layers m;
  const int fields = embed_fields(m, "", values, inputs, width);
  std::vector<int> vectors, top;
  if (const std::vector<int> numbers = numbers_of_row(m, values, inputs); !numbers.empty()) {
    const int hidden = hidden_layers(m, "bottom", m.concat(numbers), values.list("bottom"), 0);
    vectors.push_back(m.dense("bottom_output", hidden, width));
    top.push_back(vectors.back());
  }
  vectors.push_back(fields);
  if (values.flag("embeddings_to_top")) top.push_back(fields);
  const int all = m.concat(vectors);
  if (m.width(all) == width)
    user_error(
        "model.ids: got false, and the one field that is left has no other to take the dot with; "
        "set it to true, or choose another of model.user_codes, model.categories, model.tags, "
        "model.duration, model.friends and model.daily");
  top.push_back(m.pair_dots(all, width));
  const int x =
      hidden_layers(m, "top", m.concat(top), values.list("top"), values.number("dropout"));
  m.dense("output", x, 1, Initializer::kTargetMean);
  return {std::move(m), objective_of(values)};
}

}  // namespace

SystemEntry dlrm_entry() {
  return {"dlrm", "dots of every two embeddings of a row's fields, a network over them", options,
          make, field_columns};
}

}  // namespace kt
