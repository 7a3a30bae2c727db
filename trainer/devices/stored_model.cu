#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "launch/base/errors.h"
#include "trainer/devices/fused_predictor.h"
#include "trainer/devices/stored_model.h"
#include "trainer/run/engine_choice.h"

namespace kt {

StoredModel::StoredModel(const Problem& problem, const Parameters& parameters,
                         Communicator& devices)
    : problem_(problem),
      devices_(devices),
      model_(problem.system.graph, engine_options(problem.config).form, stream_),
      columns_{DeviceArray<float>(problem.columns.users, stream_),
               DeviceArray<float>(problem.columns.items, stream_)} {
  KT_CHECK(!problem.system.encoder && !problem.system.history_weights && !problem.system.trees,
           "a score reads whole histories");
  const DeviceArray<float> dense(parameters.dense, stream_);
  model_.set_dense(dense.data(), stream_);
  model_.set_running_norms(dense.data(), stream_);
  const int64_t users = problem.user_rows(devices.world()).size();
  user_parts_ = parts_of(Side::kUser, {0, users}, parameters);
  item_parts_ = parts_of(Side::kItem, parameters.held_items(), parameters);
  if (parameters.holding() == Holding::kReplica) return;
  const World world = devices.world();
  const int64_t width = problem.engine->part_width(Side::kItem);
  for (int rank = 0; rank < world.size; ++rank) {
    const Range blocks = shards_of_rank(parameters.shard_count(), {rank, world.size});
    const std::vector<int64_t>& begin = parameters.item_begin();
    item_floats_.push_back((begin[blocks.end] - begin[blocks.begin]) * width);
  }
  own_item_parts_ = std::exchange(
      item_parts_,
      DeviceArray<float>(std::accumulate(item_floats_.begin(), item_floats_.end(), int64_t{0})));
}

DeviceArray<float> StoredModel::parts_of(Side side, Range held, const Parameters& parameters) {
  const ArrayKind kind = side == Side::kUser ? ArrayKind::kUserTable : ArrayKind::kItemTable;
  std::vector<DeviceArray<float>> values;
  std::vector<const float*> tables;
  std::vector<int64_t> cols;
  for (size_t a = 0; a < problem_.engine->parameters().size(); ++a) {
    const ParameterArray& array = parameters.arrays[a];
    if (array.spec.kind != kind) continue;
    tables.push_back(values.emplace_back(array.value, stream_).data());
    cols.push_back(array.spec.cols);
  }
  const DeviceArray<const float*> table(tables, stream_);
  const DeviceArray<int64_t> table_cols(cols, stream_);
  const int64_t first =  // columns of items are those of all
      side == Side::kItem ? held.begin * problem_.engine->column_count(side) : 0;
  return parts_of_all(model_, side,
                      {.n = held.size(),
                       .tables = table.data(),
                       .table_cols = table_cols.data(),
                       .columns = columns_[static_cast<size_t>(side)].data() + first},
                      stream_);
}

std::unique_ptr<Predictor> StoredModel::make_predictor() {
  if (!item_floats_.empty()) {
    devices_.all_gather(own_item_parts_.data(), item_parts_.data(), item_floats_,
                        DataType::kFloat32, stream_.handle());
    devices_.synchronize(stream_.handle());
  }
  return std::make_unique<FusedPredictor>(
      problem_, model_,
      FusedPredictor::Weights{.user_parts = std::move(user_parts_),
                              .item_parts = std::move(item_parts_),
                              .columns = {columns_[0].data(), columns_[1].data()}},
      stream_);
}

}  // namespace kt
