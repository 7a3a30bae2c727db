#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/config/config.h"
#include "models/fused/arithmetic.h"
#include "models/graph/engine.h"
#include "models/systems/system.h"
#include "sharding/plan.h"
#include "trainer/devices/device_catalogue.h"
#include "trainer/planning/device_kernels.h"

/// What a run will need, before anything is taken: arithmetic on counts alone, no data and no ranks. The model
/// behind it, with its formulas and sources, is docs/plan.md.
namespace kt {

struct PlanInputs {
  Config config;                          ///< `resolve_engine` is done
  std::vector<int64_t> shard_rows;        ///< [V] training and validation rows
  std::vector<int64_t> shard_users;       ///< [V]
  std::vector<ParameterSpec> parameters;  ///< of the model
  std::optional<MeansFit> means{};  ///< found in one step over all rows; none: in steps of batches
  int64_t users = 0;
  int64_t items = 0;
  std::array<int64_t, kSides> columns{};  ///< of users, items and rows
  int64_t dropout_width = 0;              ///< dropout factors a row
  int64_t group = 1;                      ///< rows of a sample (models/graph/objective.h)
  int64_t user_part = 0;                  ///< floats of a user's part (models/graph/engine.h)
  int64_t item_part = 0;  ///< of an item's
  int64_t workspace = 0;  ///< floats of a thread or a team; of the fused engine
  fused::Arithmetic arithmetic;
  int64_t test_pairs = 0;
  int64_t ranks = 1;
  int64_t nodes = 1;  ///< ranks are spread evenly over them, in order
  Device device;
};

/// What a rank sends and receives in one collective; what stays on the rank is not counted. An all_to_all goes
/// straight to each rank; an all_gather goes round a ring; an all_reduce of less than 10,000 bytes doubles
/// recursively, a longer one goes round a ring; a barrier sends empty messages to the rank 1, 2, 4, .. after it.
struct Traffic {
  double messages = 0;  ///< sent
  double sent_bytes = 0;
  double received_bytes = 0;
  double read_bytes = 0;  ///< after a meeting, where other ranks of the node have them: no messages
  // The part of the above that crosses nodes.
  double remote_messages = 0;
  double remote_sent_bytes = 0;
  double remote_received_bytes = 0;
};

struct Collective {
  std::string operation;
  std::string what;
  std::vector<Traffic> ranks;  ///< [ranks]
  double seconds = 0;          ///< of the rank that takes longest
  int64_t times = 1;           ///< made in a step; neighbours that are made as often take turns
  int64_t rounds = 0;          ///< messages that wait for one another; 0: nobody waits
  double waiting_seconds = 0;  ///< of `seconds`, what bytes have no part in
};

/// Items of a step. `rows[r][s]`: rows of rank r whose item is of rank s; `next_rows`: those of the step after it;
/// `parts[r][s]`: distinct items among the rows; `computed[s]`: distinct items that rank s computes parts of.
/// Shapes: [ranks][ranks], [ranks].
struct StepItems {
  explicit StepItems(int64_t ranks = 0)
      : rows(ranks, std::vector<double>(ranks)), next_rows(rows), parts(rows), computed(ranks) {}
  std::vector<std::vector<double>> rows, next_rows, parts;
  std::vector<double> computed;
};

/// Rows that a step makes of samples of each rank's shards, on average over an epoch; the one step of means takes all.
/// Shapes: [ranks].
std::vector<double> samples_of_ranks(const PlanInputs& inputs);
/// Every item equally likely. Shapes: samples [ranks].
StepItems expected_requests(const PlanInputs& inputs, const std::vector<double>& samples);
/// The collectives of a step that was announced, in order, as sharding/exchange.cpp makes them; on devices as
/// trainer/devices/fused_step.cu and device_step.cu do; of means as trainer/steps/means_step.cpp and sharding/item_rows.cpp
/// do, and the request at the step's end.
std::vector<Collective> step_collectives(const PlanInputs& inputs, const StepItems& requests);

/// When memory is needed. The most a rank needs is what it always needs, and the larger of training and the evaluation
/// after it. Training needs its own all the while, and then what loading needs, or a step (kept) with what it needs for
/// itself alone, a checkpoint being written or a validation; an evaluation in between counts as one.
enum class MemoryPhase {
  kAlways,
  kTraining,
  kLoading,
  kStep,
  kStepAlone,
  kCheckpoint,
  kValidation,
  kEvaluation
};

struct MemoryUse {
  std::string what;
  MemoryPhase phase = MemoryPhase::kAlways;
  int64_t bytes = 0;
};

/// The most that `uses` need at once. Units: bytes.
int64_t peak_bytes(const std::vector<MemoryUse>& uses);

struct RankPlan {
  int64_t node = 0;
  Range shards;
  int64_t rows = 0;
  int64_t users = 0;
  double samples = 0;             ///< rows of a step
  std::vector<Range> owned;       ///< rows of each parameter array that this rank updates for all
  std::vector<MemoryUse> memory;  ///< the same entries on every rank
  std::vector<double> busy_seconds;   ///< a step, by `Plan::busy_parts`
  std::vector<DeviceKernel> kernels;  ///< a step of the fused engine on a device, in their place
  double compute_seconds = 0;         ///< a step without its communication
};

struct Plan {
  std::vector<RankPlan> ranks;
  std::vector<Collective> collectives;

  int64_t training_rows = 0;  ///< expected
  int64_t steps = 0;          ///< an epoch
  int64_t largest_shard = 0;
  double largest_share = 0;   ///< of all rows
  double speed_up_bound = 0;  ///< rows of all over rows of the rank that has most

  int64_t parameters = 0;  ///< elements
  double flops = 0;        ///< a step, over all ranks; of means not counted

  int64_t memory_bytes =
      0;  ///< needed: gpu: the rank that needs most; cpu: the node that needs most
  bool fits = true;
  /// The fewest ranks that fit, with as many ranks a node as now; 0: no number up to V does.
  int64_t ranks_needed = 0;

  /// Names of RankPlan::busy_seconds. On the cpu they add up; through libtorch on a gpu the longest counts.
  std::vector<std::string> busy_parts;
  double epoch_seconds = 0;          ///< of the slowest rank, before the first step of an epoch
  double compute_seconds = 0;        ///< a step of the slowest rank without its communication
  double communication_seconds = 0;  ///< a step, all of it exposed
  double waiting_seconds = 0;        ///< of it, what bytes have no part in
  int64_t waits = 0;                 ///< a step: collectives that wait for other ranks
  int64_t rounds = 0;                ///< a step: messages that wait for one another
  double step_seconds() const { return compute_seconds + communication_seconds; }
  double epoch_and_steps_seconds() const {
    return epoch_seconds + static_cast<double>(steps) * step_seconds();
  }
  double oversubscription = 1;  ///< cpu: threads of a node over its cores, at least 1
};

/// Throws: UserError for more ranks than shards, ranks or nodes that do not go together, no training rows.
Plan make_plan(const PlanInputs& inputs);

/// A step on another number of ranks.
struct ScalingPoint {
  int64_t ranks = 1, nodes = 1;
  int64_t peak_bytes = 0;     ///< of the rank that needs most
  double incoming_bytes = 0;  ///< a step, of the rank that receives and reads most
  int64_t waits = 0, rounds = 0;
  double compute_seconds = 0, communication_seconds = 0, waiting_seconds = 0;
  std::string longest;  ///< of the collectives
  double longest_seconds = 0;
  double step_seconds() const { return compute_seconds + communication_seconds; }
  bool ends_scaling() const { return ranks > 1 && communication_seconds >= compute_seconds; }
};

/// On 1, 2, 4, .. ranks up to one a shard, with at most as many a node as `inputs` has.
std::vector<ScalingPoint> scaling_of(const PlanInputs& inputs);

}  // namespace kt
