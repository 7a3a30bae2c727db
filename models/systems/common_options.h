#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/systems/system.h"

/// Options that several systems have.
namespace kt {

/// `loss`, `delta`, `target.*`, `negatives.*`, `temperature`, with the defaults of `standard`.
void add_objective_options(std::vector<OptionDeclaration>& to, const Objective& standard);
/// Without `clip`, which is a key of the data, and what is found in the training labels.
Objective objective_of(const OptionValues& values);

/// `penalty`: of the squared rows of tables (ParameterSpec::row_penalty).
OptionDeclaration penalty_option();

/// `init`, `init_deviation`: the deviation of the embeddings' initial values.
void add_init_options(std::vector<OptionDeclaration>& to, const std::string& standard);
/// sqrt(2 / rows) of the table; or of those that have training rows; or .1 (Keras draws by the table's shape, whose
/// rows without any are never read).
double user_deviation(const OptionValues& values, const SystemInputs& inputs);
double item_deviation(const OptionValues& values, const SystemInputs& inputs);

}  // namespace kt
