#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/model.h"

namespace kt {

class TorchModel;

/// What a model needs to know of the data set to declare its parameters.
struct ModelOptions {
  int64_t users = 0;
  int64_t items = 0;
  int64_t features = 0;  ///< item features a row; 0 drops the content layer
};

/// The names `model.name` accepts.
std::vector<std::string> model_names();

/// The engine of model `name`, one intra-op thread a call.
/// Throws: BugError for a name that is not one of `model_names()`.
std::unique_ptr<Engine> make_engine(const std::string& name, const ModelOptions& options);

/// What libtorch engines compute, on any device. Throws: as make_engine.
std::unique_ptr<const TorchModel> make_model(const std::string& name, const ModelOptions& options);

}  // namespace kt
