#include "models/systems/registry.h"

#include <algorithm>
#include <vector>

#include "launch/base/errors.h"
#include "models/fused/fused_engine.h"
#include "models/systems/als.h"
#include "models/systems/autoencoder.h"
#include "models/systems/cosine.h"
#include "models/systems/dcn_v2.h"
#include "models/systems/deepfm.h"
#include "models/systems/dlrm.h"
#include "models/systems/feature_mlp.h"
#include "models/systems/gbdt.h"
#include "models/systems/gram.h"
#include "models/systems/lightgcn.h"
#include "models/systems/means.h"
#include "models/systems/mf.h"
#include "models/systems/ncf.h"
#include "models/systems/two_tower.h"
#include "models/systems/watch_time.h"
#include "models/torch/torch_library.h"

namespace kt {

std::span<const SystemEntry> systems() {
  static const std::vector<SystemEntry> all = [] {
    std::vector<SystemEntry> entries = {
        ncf_entry(),     mf_entry(),          bpr_entry(),
        softmax_entry(), lightgcn_entry(),    feature_mlp_entry(),
        gbdt_entry(),    two_tower_entry(),   two_tower_hybrid_entry(),
        dcn_v2_entry(),  dlrm_entry(),        deepfm_entry(),
        als_entry(),     autoencoder_entry(), cosine_entry()};
    for (const auto& more : {watch_time_entries(), means_entries(), gram_entries()})
      entries.insert(entries.end(), more.begin(), more.end());
    return entries;
  }();
  return all;
}

const SystemEntry& find_system(const std::string& name) {
  const auto all = systems();
  const auto found =
      std::ranges::find_if(all, [&](const SystemEntry& entry) { return name == entry.name; });
  KT_CHECK(found != all.end(), "no system is named '{}'", name);
  return *found;
}

std::vector<ModelDeclaration> model_declarations() {
  std::vector<ModelDeclaration> declarations;
  for (const SystemEntry& entry : systems())
    declarations.push_back({entry.name, entry.about, entry.options()});
  return declarations;
}

System make_default_system(const std::string& name, const SystemInputs& inputs) {
  const SystemEntry& entry = find_system(name);
  return entry.make(OptionValues(entry.options()), inputs);
}

std::unique_ptr<Engine> make_engine(const System& system, const EngineOptions& options) {
  if (options.kind == EngineKind::kFused)
    return make_fused_engine(system.graph, system.objective, options.form, options.simd);
  return make_engine_of_leaves(make_leaf_engine(system));
}

std::unique_ptr<LeafEngine> make_leaf_engine(const System& system) {
  return torch_library().make_torch_engine(system.graph, system.objective);
}

}  // namespace kt
