#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/systems/system.h"

/// What categorical models (dcn_v2, dlrm, deepfm, heads of watch time) read of a row: *fields*, each with an embedding of one width, of the
/// ids, of every category of users and videos and of a video's tags; and numbers.
namespace kt {

/// `embedding`, `init_deviation`, `penalty`, and which fields there are.
void add_field_options(std::vector<OptionDeclaration>& to);
std::vector<Column> field_columns(const OptionValues& values);

/// Embeddings of all fields side by side. Shapes: [fields * width]. `name` tells a second set of the same fields apart.
/// Throws: UserError where no field is chosen.
int embed_fields(Layers& m, const std::string& name, const OptionValues& values,
                 const SystemInputs& inputs, int64_t width);
/// The numbers of a row's user and video; empty where none is chosen.
std::vector<int> numbers_of_row(Layers& m, const OptionValues& values, const SystemInputs& inputs);

}  // namespace kt
