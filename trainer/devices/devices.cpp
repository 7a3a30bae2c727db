#include "trainer/devices/devices.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/collectives/agree.h"
#ifdef KT_GPU
#include "launch/collectives/nccl_communicator.h"
#include "models/torch/device_engine.h"
#include "trainer/devices/autoencoder_on_device.h"
#include "trainer/devices/device_als_tables.h"
#include "trainer/devices/device_step.h"
#include "trainer/devices/fused_step.h"
#include "trainer/devices/stored_model.h"
#endif

namespace kt {
namespace {

void refuse_reduced_precision(const Config& config, MpiCommunicator& control) {
  agree(control, [&] {
    if (config.parallel.precision != Precision::kFp32)
      user_error(
          "parallel.precision: got {}, but parallel.backend=auto finds no GPUs for this run: set "
          "parallel.precision=fp32",
          name_of(config.parallel.precision));
  });
}

}  // namespace

std::string lack_of_device_form(const System& system, std::span<const Column> columns,
                                EngineName engine) {
  const auto uses = [&](auto&& is) { return std::ranges::any_of(system.graph.parameters(), is); };
  // Neither computes by an engine.
  if (system.als || system.encoder)
    return engine != EngineName::kTorch ? ""
           : system.als                 ? "it is found by least squares"
                                        : "it reads whole histories";
  const std::string lack = system.means || system.gram || system.profiles || system.trees
                               ? "it is found in one step"
                           : system.propagation ? "its embeddings are propagated over all rows"
                           : !system.graph.shared_tables().empty() ? "its videos share embeddings"
                           : system.objective.is_full_softmax() ? "its softmax is over all videos"
                           : system.watch_time                  ? "it predicts play times"
                                                                : "";
  if (!lack.empty()) return lack;
  if (uses([](const ParameterSpec& spec) {
        return spec.kind == ParameterKind::kDense && spec.row_penalty > 0;
      }))
    return "it has a penalty on embeddings of codes";
  if (engine != EngineName::kTorch) return lack;
  std::vector<double> rates;
  for (const DropoutColumns& layer : system.graph.dropouts()) rates.push_back(layer.probability);
  const auto has_norms = [&] {
    return std::ranges::any_of(system.graph.layers(), [](const Layer& layer) {
      return layer.kind == LayerKind::kBatchNorm;
    });
  };
  return system.objective.loss != Loss::kSquared     ? "its loss is not the squared error"
         : system.graph.column_count(Side::kRow) > 0 ? "it reads columns of rows"
         : has_norms()                               ? "it has batch norms"
         : uses([](const ParameterSpec& spec) { return spec.row_penalty > 0; })
             ? "it has a penalty on embeddings"
         : system.objective.target != TargetKind::kRaw ? "its target is not the label itself"
         : !columns.empty()                            ? "it reads columns of tables or labels"
         : std::ranges::adjacent_find(rates, std::not_equal_to<>()) != rates.end()
             ? "its dropout layers have several rates"
         : uses([](const ParameterSpec& spec) {
             return spec.initializer == Initializer::kTargetMean;
           })
             ? "it starts from the mean of the targets"
             : "";
}

namespace {

/// Of a system that devices cannot train, by name; empty where they can.
std::string refusal(const Problem& problem) {
  const Config& config = problem.config;
  const std::string lack =
      lack_of_device_form(problem.system, problem.described, config.model.engine);
  if (lack.empty()) return lack;
  return fmt::format("model.name: got {}, which has no form on GPUs{}: {}", config.model.name,
                     config.model.engine == EngineName::kTorch ? " by libtorch" : "", lack);
}

}  // namespace

void expect_device_form(const Problem& problem) {
  const auto& outliers = problem.config.train.outliers;
  if (outliers.loss > 0 || outliers.gradient_norm > 0)
    throw AgreedError(
        "train.outliers: on devices the host sees losses some steps later; set "
        "parallel.backend=mpi, or 0 for train.outliers.loss and train.outliers.gradient_norm");
  const std::string why = refusal(problem);
  if (!why.empty()) throw AgreedError(why + "; set parallel.backend=mpi");
}

#ifdef KT_GPU
namespace {

void tell_samples(bool resident, MpiCommunicator& control) {
  int64_t away = resident ? 0 : 1;
  control.all_reduce(std::span(&away, 1), Reduction::kSum);
  if (away == 0)
    log_info("samples: in device memory");
  else
    log_info(
        "samples: {} of {} ranks have no room for theirs in device memory and send each step's "
        "ahead of it",
        away, control.world().size);
}

ProductPrecision precision_of(Precision precision) {
  switch (precision) {
    case Precision::kTf32:
      return ProductPrecision::kTf32;
    case Precision::kBf16:
      return ProductPrecision::kBf16;
    default:
      return ProductPrecision::kFp32;
  }
}

class NcclDevices final : public Devices {
 public:
  explicit NcclDevices(MpiCommunicator& control) : comm_(control) {}

  std::unique_ptr<Steps> make_steps(const Problem& problem, Parameters& parameters,
                                    const Schedule& schedule, std::span<const ShardSamples> samples,
                                    const NegativeSampler* negatives, MpiCommunicator& control,
                                    ThreadPool& pool) override {
    std::unique_ptr<StepsOnDevice> steps;
    agree(control, [&] {
      const Config& config = problem.config;
      if (problem.system.encoder) {
        steps = std::make_unique<AutoencoderOnDevice>(problem, parameters, schedule, samples, comm_,
                                                      control, pool);
        return;
      }
      if (config.model.engine == EngineName::kFused) {
        const Form form = config.model.form == FormName::kIds ? Form::kIds : Form::kRows;
        steps = std::make_unique<FusedStep>(problem, parameters, form, schedule, samples, negatives,
                                            comm_, control);
        return;
      }
      engine_ = make_device_engine(problem.system, precision_of(config.parallel.precision));
      steps = std::make_unique<DeviceStep>(
          *problem.engine, *engine_, parameters, schedule, samples, problem.columns.items,
          problem.system.objective,
          DeviceStep::Options{.seed = static_cast<uint64_t>(config.train.seed),
                              .clip_norm = config.train.clip_norm},
          comm_, control);
    });
    tell_samples(steps->samples_resident(), control);
    return steps;
  }
  std::unique_ptr<Predictor> make_predictor(const Problem& problem, const Parameters& parameters,
                                            MpiCommunicator& control) override {
    agree(control, [&] { model_.emplace(problem, parameters, comm_); });
    log_info("scores: by the fused engine on {}",
             control.world().size == 1 ? "a device" : "a device a rank");
    return model_->make_predictor();
  }
  std::unique_ptr<AlsTables> make_als_tables(const AlsFit& fit, Parameters& parameters,
                                             const AlsTables::Rows& rows,
                                             MpiCommunicator& control) override {
    std::unique_ptr<AlsTables> tables;
    agree(control,
          [&] { tables = std::make_unique<DeviceAlsTables>(fit, parameters, rows, comm_); });
    return tables;
  }
  void finish() override { comm_.finish(); }

 private:
  NcclCommunicator comm_;
  std::unique_ptr<DeviceEngine> engine_;
  std::optional<StoredModel> model_;
};

}  // namespace

std::unique_ptr<Devices> find_devices(const Config& config, MpiCommunicator& control) {
  if (config.parallel.backend == Backend::kMpi) return nullptr;
  try {
    return std::make_unique<NcclDevices>(control);
  } catch (const AgreedError& error) {
    if (config.parallel.backend == Backend::kNccl) throw;
    refuse_reduced_precision(config, control);
    log_info("parallel.backend=auto takes MPI: {}", error.what());
    return nullptr;
  }
}

std::unique_ptr<Devices> find_scoring_devices(const Problem& problem, MpiCommunicator& control) {
  Config config = problem.config;
  config.parallel.precision = Precision::kFp32;
  const bool of_host = problem.system.als || problem.system.encoder ||
                       problem.system.history_weights || problem.system.trees;
  const std::string why =
      of_host ? fmt::format("model.name: got {}, whose stored runs are scored on the host alone",
                            config.model.name)
      : config.model.engine == EngineName::kTorch
          ? "model.engine: got torch, which scores a stored run on the host alone"
          : refusal(problem);
  if (why.empty() || config.parallel.backend == Backend::kMpi) return find_devices(config, control);
  if (config.parallel.backend == Backend::kNccl)
    throw AgreedError(why + "; set parallel.backend=auto");
  log_info("parallel.backend=auto scores on the host: {}", why);
  return nullptr;
}

#else

std::unique_ptr<Devices> find_devices(const Config& config, MpiCommunicator& control) {
  agree(control, [&] {
    if (config.parallel.backend == Backend::kNccl)
      user_error(
          "parallel.backend: got nccl, but this build has no NCCL: build with `cmake --preset "
          "gpu`, "
          "or set parallel.backend=mpi");
  });
  refuse_reduced_precision(config, control);
  return nullptr;
}

std::unique_ptr<Devices> find_scoring_devices(const Problem& problem, MpiCommunicator& control) {
  Config config = problem.config;
  config.parallel.precision = Precision::kFp32;
  return find_devices(config, control);
}

#endif

}  // namespace kt
