#include "trainer/problem.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "launch/agree.h"
#include "launch/errors.h"
#include "launch/random.h"
#include "models/content_features.h"
#include "models/registry.h"

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

Problem open_problem(const Config& config, Communicator& comm) {
  Problem problem{.config = config};
  agree(comm, [&] {
    problem.dataset = Dataset::open(config.data.path);
    check_world(problem.dataset.shards(), comm.world());
    if (config.model.content == Content::kDaily) {
      if (!problem.dataset.has_daily())
        user_error(
            "{}: model.content is daily, but the data set has no item_daily_features.csv; import "
            "the data with that file, or set model.content=none",
            config.data.path);
      problem.item_features = load_item_features(problem.dataset, config);
    }
    problem.ids = problem.dataset.read_ids();
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
  problem.engine = make_engine(config.model.name, problem.model);
  return problem;
}

Parameters make_parameters(const Problem& problem, World world) {
  std::vector<ArraySpec> specs;
  for (const ParameterSpec& spec : problem.engine->parameters())
    specs.push_back({spec.name, array_kind(spec.kind), spec.rows, spec.cols});
  const Holding holding =
      problem.config.parallel.reduce == Reduce::kExact ? Holding::kOwnBlocks : Holding::kReplica;
  return {std::move(specs), problem.users_per_shard, world, holding, optimizer_of(problem.config)};
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

class HostPredictor final : public Predictor {
 public:
  HostPredictor(const Problem& problem, Parameters& parameters, Communicator& comm);
  void predict(std::span<const int32_t> users, std::span<const int32_t> items,
               std::span<float> out) const override;

 private:
  const Problem& problem_;
  Parameters& parameters_;
  std::vector<std::vector<float>> item_tables_;  // in full, in the order of the arrays
};

HostPredictor::HostPredictor(const Problem& problem, Parameters& parameters, Communicator& comm)
    : problem_(problem), parameters_(parameters) {
  for (const ParameterArray& array : parameters.arrays)
    if (array.spec.kind == ArrayKind::kItemTable)
      item_tables_.push_back(parameters.gather_items(comm, array));
}

void HostPredictor::predict(std::span<const int32_t> users, std::span<const int32_t> items,
                            std::span<float> out) const {
  const size_t rows = items.size();
  const int64_t features = problem_.engine->feature_count();
  LeafInput input{.rows = static_cast<int64_t>(rows)};
  std::vector<float> feature_rows(rows * features);
  for (size_t k = 0; k < rows; ++k)
    std::copy_n(problem_.item_features.data() + items[k] * features, features,
                feature_rows.data() + static_cast<int64_t>(k) * features);
  input.features = feature_rows;

  std::vector<std::vector<float>> gathered;
  gathered.reserve(parameters_.arrays.size());
  size_t item_table = 0;
  for (const ParameterArray& array : parameters_.arrays) {
    const int64_t cols = array.spec.cols;
    if (array.spec.kind == ArrayKind::kDense) {
      input.dense.push_back(std::span<const float>(parameters_.dense)
                                .subspan(array.dense_offset, array.spec.rows * cols));
      continue;
    }
    const bool of_users = array.spec.kind == ArrayKind::kUserTable;
    const float* table =
        of_users ? array.value.data() - array.held.begin * cols : item_tables_[item_table++].data();
    std::vector<float>& to = gathered.emplace_back(rows * cols);
    for (size_t k = 0; k < rows; ++k)
      std::copy_n(table + (of_users ? problem_.user_row[users[k]] : items[k]) * cols, cols,
                  to.data() + static_cast<int64_t>(k) * cols);
    input.tables.push_back(to);
  }
  problem_.engine->predict(input, out);
}

}  // namespace

std::unique_ptr<Predictor> make_host_predictor(const Problem& problem, Parameters& parameters,
                                               Communicator& comm) {
  return std::make_unique<HostPredictor>(problem, parameters, comm);
}

}  // namespace kt
