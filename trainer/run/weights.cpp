#include "trainer/run/weights.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "launch/base/math.h"
#include "launch/base/random.h"
#include "trainer/run/engine_choice.h"

namespace kt {
namespace {

ArrayKind array_kind(ParameterKind kind) {
  switch (kind) {
    case ParameterKind::kUserTable:
      return ArrayKind::kUserTable;
    case ParameterKind::kItemTable:
      return ArrayKind::kItemTable;
    case ParameterKind::kSharedRows:
      return ArrayKind::kSharedRows;
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
    const double radius = std::sqrt(-2 * math::log(1 - to_uniform(bits)));
    const double value = radius * math::cos_pi(2 * to_uniform(mix(bits + 1)));
    if (std::abs(value) <= 2) return value;
    bits = mix(bits + 2);
  }
}
constexpr double kTruncatedDeviation = 0.87962566103423978;

float initial_value(const ParameterSpec& spec, double target_mean, uint64_t seed, uint64_t array,
                    uint64_t element) {
  switch (spec.initializer) {
    case Initializer::kZero:
      return 0;
    case Initializer::kOne:
      return 1;
    case Initializer::kTargetMean:
      return static_cast<float>(target_mean);
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

/// Those of the graph, then those beside it.
std::vector<ParameterSpec> specs_of(const Problem& problem) {
  std::vector<ParameterSpec> specs = problem.engine->parameters();
  const System& system = problem.system;
  if (system.history_weights) specs.push_back(*system.history_weights);
  if (system.trees) std::ranges::copy(system.trees->arrays(), std::back_inserter(specs));
  if (system.propagation) std::ranges::copy(system.propagation->layer0, std::back_inserter(specs));
  for (const SharedTable& table : system.graph.shared_tables()) specs.push_back(table.rows);
  if (system.encoder)
    specs.insert(specs.end(), system.encoder->arrays.begin(), system.encoder->arrays.end());
  return specs;
}

}  // namespace

Parameters make_parameters(const Problem& problem, World world, ParameterUse use) {
  std::vector<ArraySpec> specs;
  for (const ParameterSpec& spec : specs_of(problem))
    specs.push_back({spec.name, array_kind(spec.kind), spec.rows, spec.cols, spec.trained,
                     spec.row_penalty, spec.computed});
  specs.insert(specs.end(), problem.kept.begin(), problem.kept.end());
  const bool of_blocks = problem.system.encoder || problem.system.propagation ||
                         !problem.system.graph.shared_tables().empty() ||
                         problem.system.objective.is_full_softmax();  // always exact
  const bool replica = problem.config.parallel.reduce == Reduce::kFast && !of_blocks;
  const Holding holding = replica ? Holding::kReplica : Holding::kOwnBlocks;
  Parameters parameters(std::move(specs), problem.users_per_shard, problem.dataset.items(), world,
                        holding, optimizer_of(problem.config), use);
  parameters.simd = engine_options(problem.config).simd;
  return parameters;
}

void initialize(Parameters& parameters, const Problem& problem) {
  const auto seed = static_cast<uint64_t>(problem.config.train.seed);
  const std::vector<ParameterSpec> specs = specs_of(problem);
  for (size_t a = 0; a < specs.size(); ++a) {
    ParameterArray& array = parameters.arrays[a];
    const ParameterSpec& spec = specs[a];
    if (spec.initializer == Initializer::kZero) continue;  // as it is made
    const auto fill = [&](int64_t row, int64_t id) {
      for (int64_t c = 0; c < spec.cols; ++c)
        array.value[(row - array.held.begin) * spec.cols + c] = initial_value(
            spec, problem.target_mean, seed, a, static_cast<uint64_t>(id * spec.cols + c));
    };
    if (array.spec.kind == ArrayKind::kUserTable) {
      for (int64_t k = 0; k < problem.users.size(); ++k) {
        const int64_t row = problem.users.row[k];
        if (array.held.contains(row)) fill(row, problem.users.user[k]);
      }
    } else {
      for (int64_t row = array.held.begin; row < array.held.end; ++row) fill(row, row);
    }
  }
  parameters.copy_dense();
}

}  // namespace kt
