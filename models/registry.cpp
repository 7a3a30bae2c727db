#include "models/registry.h"

#include "launch/errors.h"
#include "models/ncf.h"
#include "models/torch_model.h"

namespace kt {
namespace {

struct Entry {
  const char* name;
  std::unique_ptr<Engine> (*make)(const ModelOptions&);
  std::unique_ptr<const TorchModel> (*model)(const ModelOptions&);
};

constexpr Entry kModels[] = {
    {"ncf", make_ncf, make_ncf_model},
};

const Entry& find(const std::string& name) {
  for (const Entry& entry : kModels)
    if (name == entry.name) return entry;
  KT_CHECK(false, "no model is named '{}'", name);
}

}  // namespace

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const Entry& entry : kModels) names.emplace_back(entry.name);
  return names;
}

std::unique_ptr<Engine> make_engine(const std::string& name, const ModelOptions& options) {
  return find(name).make(options);
}

std::unique_ptr<const TorchModel> make_model(const std::string& name, const ModelOptions& options) {
  return find(name).model(options);
}

}  // namespace kt
