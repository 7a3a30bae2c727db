#include "trainer/run/problem.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "launch/base/errors.h"
#include "launch/base/random.h"
#include "models/features/content_features.h"
#include "models/systems/registry.h"
#include "trainer/run/cleaning.h"
#include "trainer/run/same_on_all.h"

namespace kt {
namespace {

std::vector<float> load_item_features(const Dataset& dataset, const Config& config) {
  const DailyFeatures daily = dataset.read_daily(content_columns());
  DailyRows rows{.item = daily.item, .date = daily.date, .columns = {}};
  for (const std::vector<double>& column : daily.columns) rows.columns.push_back(column);
  return content_features(rows, dataset.items(), config.data.features.until.yyyymmdd,
                          config.data.features.missing == MissingValue::kMedian
                              ? MissingPolicy::kMedian
                              : MissingPolicy::kZero);
}

ArrayKind array_kind(ParameterKind kind) {
  switch (kind) {
    case ParameterKind::kUserTable:
      return ArrayKind::kUserTable;
    case ParameterKind::kItemTable:
      return ArrayKind::kItemTable;
    default:
      return ArrayKind::kDense;
  }
}

Optimizer optimizer_of(const Config& config) {
  const auto& options = config.train.optimizer;
  Optimizer optimizer{.beta1 = options.beta1,
                      .beta2 = options.beta2,
                      .epsilon = options.epsilon,
                      .momentum = options.momentum,
                      .weight_decay = config.train.weight_decay};
  switch (options.name) {
    case OptimizerName::kAdam:
      optimizer.rule = OptimizerRule::kAdam;
      break;
    case OptimizerName::kAdamW:
      optimizer.rule = OptimizerRule::kAdamW;
      break;
    case OptimizerName::kSgd:
      optimizer.rule = OptimizerRule::kSgd;
      break;
  }
  return optimizer;
}

/// A standard normal cut at +-2, by rejection. Its deviation is .8796 (the constant Keras divides by too).
double truncated_normal(uint64_t seed, uint64_t array, uint64_t element) {
  uint64_t bits = random_bits(seed, Purpose::kInitialWeights, array, element);
  while (true) {
    const double radius = std::sqrt(-2 * std::log(1 - to_uniform(bits)));
    const double angle = 2 * std::numbers::pi * to_uniform(mix(bits + 1));
    const double value = radius * std::cos(angle);
    if (std::abs(value) <= 2) return value;
    bits = mix(bits + 2);
  }
}
constexpr double kTruncatedDeviation = 0.87962566103423978;

float initial_value(const ParameterSpec& spec, uint64_t seed, uint64_t array, uint64_t element) {
  switch (spec.initializer) {
    case Initializer::kZero:
      return 0;
    case Initializer::kOne:
      return 1;
    case Initializer::kTruncatedNormal:
      return static_cast<float>(spec.scale / kTruncatedDeviation *
                                truncated_normal(seed, array, element));
    case Initializer::kUniform:
      return static_cast<float>(
          spec.scale *
          (2 * to_uniform(random_bits(seed, Purpose::kInitialWeights, array, element)) - 1));
  }
  return 0;
}

}  // namespace

void resolve_engine(Config& config, bool on_devices) {
  auto& model = config.model;
  if (model.engine == EngineName::kAuto)
    model.engine = on_devices ? EngineName::kTorch : EngineName::kFused;
  if (model.engine == EngineName::kTorch && model.form == FormName::kIds)
    user_error(
        "model.form: got ids, but this run computes through libtorch, on GPUs: expected rows or "
        "auto; or "
        "set parallel.backend=mpi for the fused engine");
  // Below this a step has about as many ids as rows, and both forms take the same time (docs/speed.md).
  constexpr int64_t kIdsFrom = 512;
  if (model.form == FormName::kAuto)
    model.form = model.engine == EngineName::kFused && config.train.global_batch >= kIdsFrom
                     ? FormName::kIds
                     : FormName::kRows;
}

EngineOptions engine_options(const Config& config) {
  Config resolved = config;
  resolve_engine(resolved, false);
  const Simd simd = config.parallel.simd;
  if (simd == Simd::kAvx512 && best_simd_level() != SimdLevel::kAvx512)
    user_error(
        "parallel.simd: got avx512, but this CPU has no AVX-512 (F, BW, DQ, VL): set "
        "parallel.simd=auto; the bits are the same");
  return {
      .kind = resolved.model.engine == EngineName::kTorch ? EngineKind::kTorch : EngineKind::kFused,
      .form = resolved.model.form == FormName::kIds ? Form::kIds : Form::kRows,
      .simd = simd == Simd::kAuto     ? best_simd_level()
              : simd == Simd::kAvx512 ? SimdLevel::kAvx512
                                      : SimdLevel::kAvx2};
}

Problem open_problem(const Config& config, MpiCommunicator& comm) {
  Problem problem{.config = config};
  same_on_all(comm, [&] {
    engine_options(config);  // that this CPU has what is asked for
    problem.dataset = Dataset::open(config.data.path);
    check_world(problem.dataset.shards(), comm.world());
    check_cleaning(problem.dataset, config.data);
    if (config.model.content == Content::kDaily) {
      if (!problem.dataset.has_daily())
        user_error(
            "{}: model.content is daily, but the data set has no item_daily_features.csv; import "
            "the data with that file, or set model.content=none",
            config.data.path);
      problem.item_features = load_item_features(problem.dataset, config);
    }
    problem.ids = problem.dataset.read_ids();
    return Facts{{"hash of the data set", problem.dataset.hash()}};
  });
  problem.users_per_shard.assign(problem.dataset.shards(), 0);
  for (const int32_t shard : problem.ids.user_shard) ++problem.users_per_shard[shard];
  std::vector<int64_t> next(problem.users_per_shard.size(), 0);
  for (size_t j = 1; j < next.size(); ++j) next[j] = next[j - 1] + problem.users_per_shard[j - 1];
  for (const int32_t shard : problem.ids.user_shard) problem.user_row.push_back(next[shard]++);

  const int64_t items = problem.dataset.items();
  problem.model = {
      .users = problem.dataset.users(),
      .items = items,
      .features = items > 0 ? static_cast<int64_t>(problem.item_features.size()) / items : 0};
  problem.engine =
      make_engine(make_layers(config.model.name, problem.model), engine_options(config));
  return problem;
}

Parameters make_parameters(const Problem& problem, World world) {
  std::vector<ArraySpec> specs;
  for (const ParameterSpec& spec : problem.engine->parameters())
    specs.push_back({spec.name, array_kind(spec.kind), spec.rows, spec.cols, spec.trained});
  const Holding holding =
      problem.config.parallel.reduce == Reduce::kExact ? Holding::kOwnBlocks : Holding::kReplica;
  Parameters parameters(std::move(specs), problem.users_per_shard, world, holding,
                        optimizer_of(problem.config));
  parameters.simd = engine_options(problem.config).simd;
  return parameters;
}

void initialize(Parameters& parameters, const Problem& problem, Communicator& comm) {
  const auto seed = static_cast<uint64_t>(problem.config.train.seed);
  for (size_t a = 0; a < parameters.arrays.size(); ++a) {
    ParameterArray& array = parameters.arrays[a];
    const ParameterSpec& spec = problem.engine->parameters()[a];
    const auto fill = [&](int64_t row, int64_t id) {
      for (int64_t c = 0; c < spec.cols; ++c)
        array.value[(row - array.held.begin) * spec.cols + c] =
            initial_value(spec, seed, a, static_cast<uint64_t>(id * spec.cols + c));
    };
    if (array.spec.kind == ArrayKind::kUserTable) {
      for (int64_t user = 0; user < spec.rows; ++user) {
        const int64_t row = problem.user_row[user];
        if (row >= array.held.begin && row < array.held.end) fill(row, user);
      }
    } else {
      for (int64_t row = array.held.begin; row < array.held.end; ++row) fill(row, row);
    }
  }
  parameters.publish_dense(comm);
}

namespace {

/// With every part computed once. The dense weights are its own, and so is the engine that computes with them: the
/// problem's goes on with others.
class HostPredictor final : public Predictor {
 public:
  HostPredictor(const Problem& problem, const Parameters& parameters, Communicator& comm)
      : problem_(problem), dense_(parameters.dense), engine_(problem.engine->clone()) {
    engine_->set_dense(dense_);
    for (const ParameterArray& array : parameters.arrays)
      if (array.spec.kind == ArrayKind::kUserTable) first_user_row_ = array.held.begin;
    user_parts_ = parts_of(Side::kUser, ArrayKind::kUserTable, parameters);
    std::vector<float> own = parts_of(Side::kItem, ArrayKind::kItemTable, parameters);
    if (parameters.holding() == Holding::kReplica) {
      item_parts_ = std::move(own);
      return;
    }
    const int64_t width = engine_->part_width(Side::kItem);
    std::vector<int64_t> counts;
    for (int rank = 0; rank < comm.world().size; ++rank) {
      const Range blocks = shards_of_rank(parameters.shard_count(), {rank, comm.world().size});
      int64_t items = 0;
      for (const ParameterArray& array : parameters.arrays)
        if (array.spec.kind == ArrayKind::kItemTable)
          items = array.block_begin[blocks.end] - array.block_begin[blocks.begin];
      counts.push_back(items * width);
    }
    item_parts_.resize(problem.dataset.items() * width);
    comm.all_gather<float>(own, item_parts_, counts);
  }

  void predict(std::span<const int32_t> users, std::span<const int32_t> items,
               std::span<float> out) const override {
    std::vector<int32_t> rows(users.size());
    for (size_t k = 0; k < users.size(); ++k)
      rows[k] = static_cast<int32_t>(problem_.user_row[users[k]] - first_user_row_);
    engine_->predict_rows({.n = std::ssize(items),
                           .user_parts = user_parts_.data(),
                           .item_parts = item_parts_.data(),
                           .user = rows.data(),
                           .item = items.data(),
                           .item_id = items.data(),
                           .features = problem_.item_features.data()},
                          out.data());
  }

 private:
  /// Of all held rows of the side's tables.
  std::vector<float> parts_of(Side side, ArrayKind kind, const Parameters& parameters) const {
    IdBatch batch;
    Range held;
    for (const ParameterArray& array : parameters.arrays) {
      if (array.spec.kind != kind) continue;
      held = array.held;
      batch.tables.push_back(array.value.data());
    }
    std::vector<int32_t> rows(held.size());
    std::iota(rows.begin(), rows.end(), 0);
    batch.n = held.size();
    batch.row = rows.data();
    batch.features = problem_.item_features.data() + held.begin * engine_->feature_count();
    std::vector<float> parts(batch.n * engine_->part_width(side));
    engine_->forward_ids(side, batch, parts.data());
    return parts;
  }

  const Problem& problem_;
  const std::vector<float> dense_;
  const std::unique_ptr<Engine> engine_;
  int64_t first_user_row_ = 0;
  std::vector<float> user_parts_;  // [held users, part width]
  std::vector<float> item_parts_;  // [items, part width]
};

}  // namespace

std::unique_ptr<Predictor> make_host_predictor(const Problem& problem, const Parameters& parameters,
                                               Communicator& comm) {
  return std::make_unique<HostPredictor>(problem, parameters, comm);
}

}  // namespace kt
