#include "models/systems/registry.h"

#include "launch/base/errors.h"
#include "models/fused/fused_engine.h"
#include "models/systems/ncf.h"
#include "models/torch/torch_engine.h"
#include "models/torch/torch_layers.h"
#include "models/torch/torch_model.h"

namespace kt {
namespace {

struct Entry {
  const char* name;
  const char* about;
  Layers (*layers)(const ModelOptions&);
  std::vector<OptionDeclaration> (*options)() = nullptr;  // null: none
};

// The first is the default.
constexpr Entry kModels[] = {
    {"ncf", "neural regression on ids and content", ncf},
};

}  // namespace

std::vector<ModelDeclaration> model_declarations() {
  std::vector<ModelDeclaration> models;
  for (const Entry& entry : kModels)
    models.push_back({entry.name, entry.about,
                      entry.options ? entry.options() : std::vector<OptionDeclaration>()});
  return models;
}

Layers make_layers(const std::string& name, const ModelOptions& options) {
  for (const Entry& entry : kModels)
    if (name == entry.name) return entry.layers(options);
  KT_CHECK(false, "no model is named '{}'", name);
}

std::unique_ptr<Engine> make_engine(const Layers& model, const EngineOptions& options) {
  if (options.kind == EngineKind::kFused)
    return make_fused_engine(model, options.form, options.simd);
  return make_engine_of_leaves(make_torch_engine(make_torch_model(model)));
}

std::unique_ptr<LeafEngine> make_leaf_engine(const std::string& name, const ModelOptions& options) {
  return make_torch_engine(make_model(name, options));
}

std::unique_ptr<const TorchModel> make_model(const std::string& name, const ModelOptions& options) {
  return make_torch_model(make_layers(name, options));
}

}  // namespace kt
