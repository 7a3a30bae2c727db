#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "io/config/config.h"
#include "io/dataset/dataset.h"
#include "launch/collectives/mpi_communicator.h"
#include "models/graph/engine.h"
#include "models/systems/registry.h"
#include "sharding/parameters.h"

namespace kt {

/// What a configuration and a data set make together: the model and its inputs. The same on every rank.
struct Problem {
  Config config;
  Dataset dataset;
  IdTables ids;
  std::vector<int64_t> users_per_shard;  ///< [V]
  std::vector<int64_t> user_row;     ///< [users] row of a user in block order: by shard, then by id
  std::vector<float> item_features;  ///< [items, engine->feature_count()]
  ModelOptions model;
  std::unique_ptr<Engine> engine;
};

/// Puts what a run takes in place of `auto` in `model`: the engine by where it runs, the form by the global batch, so
/// that both are in its configuration and identity. Throws: UserError for ids on devices.
void resolve_engine(Config& config, bool on_devices);

/// How a configuration's model is computed on the host. Throws: UserError for a SIMD level this CPU lacks.
EngineOptions engine_options(const Config& config);

/// Opens the data set and builds the model. Collective: all ranks. Throws: UserError, the same on all.
Problem open_problem(const Config& config, MpiCommunicator& comm);

/// The parameter arrays of the model, not yet initialised.
Parameters make_parameters(const Problem& problem, World world);

/// Initial weights: each element a pure function of (seed, array, row's id, column). Collective: all ranks.
void initialize(Parameters& parameters, const Problem& problem, Communicator& comm);

/// Predictions with given weights: whose, and how long they stay, says who makes it.
class Predictor {
 public:
  virtual ~Predictor() = default;
  /// May be called by several threads at once. The users must be of this rank's shards. The bits of a prediction
  /// may depend on the other rows of its block, so callers choose blocks by logical units: a user, a fixed cut of
  /// a shard. Shapes: users, items, out [n], dense indices.
  virtual void predict(std::span<const int32_t> users, std::span<const int32_t> items,
                       std::span<float> out) const = 0;
};

/// Predicts on the host with the weights as they are now, which it keeps: borrows the problem alone. Collective: all
/// ranks, since item tables are gathered.
std::unique_ptr<Predictor> make_host_predictor(const Problem& problem, const Parameters& parameters,
                                               Communicator& comm);

}  // namespace kt
