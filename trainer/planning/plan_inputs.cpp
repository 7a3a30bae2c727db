#include "trainer/planning/plan_inputs.h"

#include <fmt/format.h>

#include <bit>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "io/dataset/dataset.h"
#include "launch/base/errors.h"
#include "models/systems/registry.h"
#include "trainer/devices/devices.h"
#include "trainer/planning/kuairec_counts.h"
#include "trainer/run/engine_choice.h"
#include "trainer/run/problem.h"

namespace kt {
namespace {

using nlohmann::json;

void assume(const AssumedCounts& counts, PlanInputs& inputs) {
  const auto or_of_kuairec = [](int64_t count, int64_t of_kuairec) {
    return count > 0 ? count : of_kuairec;
  };
  const int64_t shards = or_of_kuairec(counts.shards, KuaiRecCounts::shards);
  if (!std::has_single_bit(static_cast<uint64_t>(shards)))
    user_error("--shards {}: expected a power of two, as an import makes them; give {} or {}",
               shards, std::bit_floor(static_cast<uint64_t>(shards)),
               std::bit_ceil(static_cast<uint64_t>(shards)));
  const auto even = [&](int64_t n) {
    const std::vector<int64_t> begin = even_blocks(n, shards);
    std::vector<int64_t> sizes;
    for (size_t j = 0; j + 1 < begin.size(); ++j) sizes.push_back(begin[j + 1] - begin[j]);
    return sizes;
  };
  inputs.users = or_of_kuairec(counts.users, KuaiRecCounts::users);
  inputs.items = or_of_kuairec(counts.items, KuaiRecCounts::items);
  inputs.shard_rows = even(or_of_kuairec(counts.rows, KuaiRecCounts::rows));
  inputs.shard_users = even(inputs.users);
  inputs.test_pairs = KuaiRecCounts::test_pairs;
}

void take_counts(const Dataset& dataset, PlanInputs& inputs) {
  if (reads_content(inputs.config) && !dataset.has_daily())
    user_error(
        "{}: model.content is daily, but the data set has no item_daily_features.csv; import the "
        "data with that file, or set model.content=none",
        dataset.path().string());
  inputs.shard_rows = dataset.shard_rows();
  for (const json& shard : dataset.manifest().at("shards"))
    inputs.shard_users.push_back(shard.at("users"));
  inputs.users = dataset.users();
  inputs.items = dataset.items();
  inputs.test_pairs = dataset.test_rows();
}

/// `dataset`: null where counts are assumed.
void take_model(const Dataset* dataset, PlanInputs& inputs) {
  resolve_engine(inputs.config, inputs.device.gpu);
  const std::vector<Column> columns = columns_of(inputs.config);
  const SystemInputs of_system =
      dataset ? system_inputs(inputs.config, columns, *dataset)
              : system_inputs(inputs.config, columns, inputs.users, inputs.items,
                              [&](Side side) { return kuairec_codes(columns, side); });
  inputs.columns = of_system.columns;
  const System system =
      find_system(inputs.config.model.name).make(inputs.config.model.options, of_system);
  const bool is_fused = inputs.config.model.engine == EngineName::kFused;
  const std::string lack = lack_of_device_form(system, columns, inputs.config.model.engine);
  if (inputs.device.gpu && !lack.empty())
    user_error("model.name: got {}, which has no form on GPUs{}: {}; set --device cpu",
               inputs.config.model.name, is_fused ? "" : " by libtorch", lack);
  inputs.means = system.means;
  if (system.als || system.gram || system.encoder || system.profiles || system.trees ||
      system.propagation || system.objective.is_full_softmax())
    throw NoPlan(fmt::format(
        "model.name: got {}, whose steps are over all rows, users or videos, expected "
        "a system of steps over batches of rows or of means; there is no plan of it yet",
        inputs.config.model.name));
  const Layers& model = system.graph;
  inputs.parameters = model.parameters();
  for (const SharedTable& table : model.shared_tables()) inputs.parameters.push_back(table.rows);
  if (!model.shared_tables().empty()) inputs.config.parallel.reduce = Reduce::kExact;
  inputs.dropout_width = model.dropout_width();
  inputs.group = system.objective.group();
  const Form form =
      is_fused && inputs.config.model.form == FormName::kIds ? Form::kIds : Form::kRows;
  const fused::CompiledModel compiled(model, form);
  inputs.arithmetic = fused::arithmetic_of(compiled);
  const auto engine = make_engine(
      system, {.kind = is_fused ? EngineKind::kFused : EngineKind::kTorch, .form = form});
  inputs.user_part = engine->part_width(Side::kUser);
  inputs.item_part = engine->part_width(Side::kItem);
  const int64_t blocks = (inputs.group + fused::kBlockRows - 1) / fused::kBlockRows;
  if (is_fused) inputs.workspace = blocks * compiled.workspace_size();
}

}  // namespace

PlanInputs plan_inputs(Config config, Device device, int64_t ranks, int64_t nodes,
                       const AssumedCounts& assumed) {
  PlanInputs inputs{.config = std::move(config), .ranks = ranks, .device = std::move(device)};
  const int64_t a_node = inputs.device.gpu ? inputs.device.per_node : ranks;
  inputs.nodes = nodes > 0 ? nodes : (ranks + a_node - 1) / a_node;
  std::optional<Dataset> dataset;
  if (!inputs.config.data.path.empty()) dataset = Dataset::open(inputs.config.data.path);
  if (dataset && assumed.any())
    user_error(
        "--users, --items, --rows, --shards: describe a data set that is not there, but data.path "
        "is {}; leave them or data.path out",
        inputs.config.data.path);
  if (dataset)
    take_counts(*dataset, inputs);
  else
    assume(assumed, inputs);
  take_model(dataset ? &*dataset : nullptr, inputs);
  return inputs;
}

}  // namespace kt
