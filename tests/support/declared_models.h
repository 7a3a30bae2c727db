#pragma once

#include <vector>

#include "launch/base/options.h"

namespace kt {

/// Models with options of every kind, for tests of the configuration, which knows no model. The first has none.
inline std::vector<ModelDeclaration> declared_models() {
  return {{"ncf", "a model without options", {}},
          {"tower",
           "a model with options of every kind",
           {whole_option("embedding", 16, {1, 512}, "width of the embeddings"),
            list_option("hidden", {64, 32}, {1, 4096}, "widths of the hidden layers"),
            number_option("dropout", .2, {0, 1, true}, "share of the values left out"),
            word_option("loss", "mse", {"mse", "bce"}, "the loss"),
            flag_option("bias", true, "a bias for every id"),
            number_option("target.low", -1, {-10, 10}, "lowest target"),
            number_option("target.high", 1, {-10, 10}, "highest target")}},
          {"shallow",
           "a model that shares an option by name",
           {number_option("dropout", .5, {0, 1, true}, "share of the values left out")}}};
}

}  // namespace kt
