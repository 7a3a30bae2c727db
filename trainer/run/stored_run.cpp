#include "trainer/run/stored_run.h"

#include <fmt/format.h>

#include "io/config/identity.h"
#include "io/config/reader.h"
#include "io/config/writers.h"
#include "launch/base/errors.h"
#include "launch/collectives/agree.h"
#include "models/systems/registry.h"
#include "trainer/run/checkpointing.h"
#include "trainer/run/fitting.h"
#include "trainer/run/same_on_all.h"
#include "trainer/run/weights.h"

namespace kt {

StoredRun open_run(const std::filesystem::path& run_dir, const std::vector<std::string>& overrides,
                   MpiCommunicator& comm) {
  Config config;
  same_on_all(comm, [&] {
    const std::filesystem::path file = run_dir / "config.yaml";
    if (!std::filesystem::exists(file))
      user_error("{}: no config.yaml there; expected the folder of a run (run.dir)",
                 run_dir.string());
    // How many ranks trained it, and where, binds nobody who reads it.
    std::vector<std::string> own{"parallel.ranks=0", "parallel.backend=auto"};
    own.insert(own.end(), overrides.begin(), overrides.end());
    config = load_config(file, own, model_declarations());
    config.run.dir = run_dir.string();
    return settings_of_all_ranks(config);
  });
  const bool best = config.evaluate.checkpoint == EvaluatedCheckpoint::kBest;
  std::optional<Checkpoint> checkpoint = find_checkpoint(
      run_dir,
      {.which = best ? CheckpointChoice::Which::kBest : CheckpointChoice::Which::kNewest,
       .path = {}},
      comm);
  if (!checkpoint)
    throw AgreedError(fmt::format("{}: the run has no checkpoint yet", run_dir.string()));
  agree(comm, [&] {
    const std::filesystem::path data = config.data.path;
    std::error_code ignored;
    if (data.is_relative() && !std::filesystem::exists(data, ignored))
      user_error(
          "{}: the data set of the run is {}, which is not there from {}; say where it is: "
          "data.path=DATASET",
          run_dir.string(), data.string(), std::filesystem::current_path(ignored).string());
  });
  Problem problem = open_problem(config, comm);
  agree(comm, [&] {
    const auto differences = identity_differences(identity_of(*checkpoint),
                                                  identity(config, problem.dataset.hash()), config);
    if (!differences.empty())
      user_error("{}: the checkpoint does not fit: {}; give these keys their stored values",
                 checkpoint->path().string(), fmt::join(differences, "; "));
  });
  Parameters parameters = make_parameters(problem, comm.world(), ParameterUse::kPrediction);
  restore_parameters(*checkpoint, parameters, Restore::kWeights, comm);
  take_fitted(problem, parameters, comm);
  return {.problem = std::move(problem),
          .parameters = std::move(parameters),
          .checkpoint = fmt::format("step {} ({})", checkpoint->step(), best ? "best" : "last"),
          .step = checkpoint->step()};
}

std::unique_ptr<Predictor> make_predictor(const StoredRun& run, Devices* devices,
                                          MpiCommunicator& comm) {
  return devices ? devices->make_predictor(run.problem, run.parameters, comm)
                 : make_host_predictor(run.problem, run.parameters, comm);
}

}  // namespace kt
