#include "trainer/planning/plan.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "launch/base/errors.h"
#include "sharding/exchange.h"
#include "sharding/optimizer.h"
#include "sharding/tree_sum.h"

namespace kt {
namespace {

constexpr double kFloat = sizeof(float);
constexpr double kDouble = sizeof(double);
constexpr double kLong = sizeof(int64_t);
constexpr double kInt = sizeof(int32_t);

// Below it the backends send an all_reduce whole in log2(n) rounds; about where Open MPI 4.1 changes over.
constexpr double kSmallAllReduceBytes = 10'000;

// Costs of a step on one core. Source: measured, docs/plan.md, "Measured constants". A leaf through libtorch, and an
// operation; an operation, a row and an id with the fused engine.
constexpr double kTorchLeaf_s = 123e-6;
constexpr double kTorchFlop_s = 20e-12;
constexpr double kFusedFlop_s = 7e-12;
constexpr double kFusedRow_s = 30e-9;
constexpr double kFusedId_s = 25e-9;
// Drawing a sample and finding its item's part; an item, asked for or not; an element of a leaf's dense gradients,
// on its way through the tree; an element updated.
constexpr double kGatherRow_s = 30e-9;
constexpr double kRouteItem_s = 4e-9;
constexpr double kLeafElement_s = .75e-9;
constexpr double kAdamElement_s = .6e-9;
constexpr double kSgdElement_s = .4e-9;
// Of means: a row, passed over in the order of the samples; brought to its video's owner, at each end; passed over by
// video.
constexpr double kMeansRow_s = 3.2e-9;
constexpr double kBroughtRow_s = 45e-9;
constexpr double kMeansVideoRow_s = 2.6e-9;
// Memory of a process before any data, and with libtorch; of a row held out; of a test pair on every rank, and on the one
// that has its user: score and metrics; of an item where there are test pairs. Source: likewise.
constexpr int64_t kProcessBytes = 41'000'000;
constexpr int64_t kTorchProcessBytes = 164'000'000;
constexpr double kHeldOutRowBytes = 36;
constexpr int64_t kTestPairBytes = 19;
constexpr int64_t kScoredPairBytes = 38;
constexpr int64_t kTestItemBytes = 100;

// Of libtorch's step on devices: an operation's launch, measured. The rest of what follows is assumed. Source: docs/plan.md,
// "On GPUs", "Assumed constants".
constexpr double kTorchLaunch_s = 34e-6;
constexpr double kGpuFlopShare = .35;
constexpr double kGpuBandwidthShare = .7;
constexpr int64_t kGpuContextBytes = 1'000'000'000;
constexpr int64_t kGpuTeams = 264;  // that are under way at once
constexpr int64_t kTeamBytes = 227 * 1024;
// A row of the steps that devices prepare at once: as it is taken, sorted by user and by item, runs of ids, room to sort; and
// how many these are at most. As trainer/devices/step_window.h and fused_step.cu have them.
constexpr int64_t kPreparedRowBytes = 136, kPreparedRows = int64_t{1} << 22;

std::vector<int64_t> blocks_of(const PlanInputs& inputs, const ParameterSpec& spec) {
  if (spec.kind != ParameterKind::kUserTable)
    return even_blocks(spec.rows, std::ssize(inputs.shard_rows));
  std::vector<int64_t> begin(1, 0);
  for (const int64_t users : inputs.shard_users) begin.push_back(begin.back() + users);
  return begin;
}

/// Sizes the formulas share.
struct Sizes {
  explicit Sizes(const PlanInputs& inputs)
      : shards(std::ssize(inputs.shard_rows)),
        ranks(inputs.ranks),
        gpu(inputs.device.gpu),
        exact(inputs.config.parallel.reduce == Reduce::kExact),
        fused(inputs.config.model.engine == EngineName::kFused),
        one_leaf(inputs.device.gpu && !exact && !fused),
        threads(inputs.config.parallel.threads) {
    for (const ParameterSpec& spec : inputs.parameters) {
      if (spec.kind == ParameterKind::kDense) {
        dense += spec.size();
        if (spec.rows > 1) ++matrices;
      } else if (spec.kind == ParameterKind::kSharedRows) {
        shared_cols += spec.cols;
      } else {
        ++tables;
        trained_tables += spec.trained;
        table_cols += spec.cols;
        if (spec.kind == ParameterKind::kItemTable)
          item_cols.push_back(spec.cols);
        else
          user_cols += spec.cols;
      }
    }
    const OptimizerOptions& options = inputs.config.train.optimizer;
    sgd = options.name == OptimizerName::kSgd;
    slots = optimizer_slots(
        {.rule = sgd ? OptimizerRule::kSgd : OptimizerRule::kAdam, .momentum = options.momentum});

    held.resize(ranks, 0);
    updated.resize(ranks, 0);
    own_dense.resize(ranks, 0);
    for (size_t a = 0; a < inputs.parameters.size(); ++a) {
      const ParameterSpec& spec = inputs.parameters[a];
      block_begin.push_back(blocks_of(inputs, spec));
      const bool own_alone = spec.kind == ParameterKind::kUserTable ||
                             (exact && (gpu || spec.kind == ParameterKind::kItemTable));
      for (int64_t rank = 0; rank < ranks; ++rank) {
        const int64_t own = owned(a, rank).size() * spec.cols;
        const int64_t here = own_alone ? own : spec.size();
        held[rank] += here;
        updated[rank] += spec.trained || spec.kind == ParameterKind::kDense ? here : 0;
        if (spec.kind == ParameterKind::kDense) own_dense[rank] += static_cast<double>(own);
      }
    }
    double all_nodes = 0;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      nodes.push_back(static_cast<double>(subtrees(shards_of(rank)).size()));
      all_nodes += nodes.back();
    }
    in_slices = sums_in_slices(all_nodes, dense, ranks);
  }

  Range shards_of(int64_t rank) const {
    return shards_of_rank(shards, {static_cast<int>(rank), static_cast<int>(ranks)});
  }
  /// What a rank computes on at once, in a step.
  int64_t units(int64_t rank) const { return one_leaf ? 1 : shards_of(rank).size(); }
  /// Buffers of dense gradients: in fast form on the host its threads have one each.
  int64_t leaves(int64_t rank) const { return exact || gpu ? units(rank) : threads; }

  /// Rows of parameter array `a` that a rank updates for all.
  Range owned(size_t a, int64_t rank) const {
    const Range own = shards_of(rank);
    return {block_begin[a][own.begin], block_begin[a][own.end]};
  }

  int64_t shards;
  int64_t ranks;
  bool gpu;
  bool exact;
  bool fused;
  bool one_leaf;
  int64_t threads;
  bool sgd = false;
  int slots = 0;
  int64_t dense = 0;  // elements of all dense arrays
  int64_t matrices = 0;
  int64_t tables = 0, trained_tables = 0;
  int64_t table_cols = 0;
  int64_t user_cols = 0;                          // of them, of the user tables
  int64_t shared_cols = 0;                        // of rows that items share
  std::vector<int64_t> item_cols;                 // of each item table
  std::vector<std::vector<int64_t>> block_begin;  // [parameter arrays][V + 1]
  std::vector<int64_t> held, updated;  // [ranks] elements of all arrays; that have optimizer state
  std::vector<double> own_dense;  // [ranks] elements of the blocks of the dense arrays
  std::vector<double> nodes;                      // [ranks] whole subtrees of its shards
  bool in_slices = false;                         // each rank sums a slice of these for all
};

/// Which of `some` ids of `all` come at least once in n draws, as expected when all are equally likely.
double distinct(double some, double all, double n) {
  return some > 0 && n > 0 ? -some * std::expm1(n * std::log1p(-1 / all)) : 0;
}

int64_t node_of(const PlanInputs& inputs, int64_t rank) {
  return ((rank + 1) * inputs.nodes - 1) / inputs.ranks;
}

int64_t most_ranks_of_a_node(const PlanInputs& inputs) {
  return (inputs.ranks + inputs.nodes - 1) / inputs.nodes;
}

/// Training rows of a shard, as expected of the split.
double training_rows(const PlanInputs& inputs, int64_t shard) {
  return static_cast<double>(inputs.shard_rows[shard]) *
         (1 - inputs.config.data.validation.fraction);
}

double training_rows(const PlanInputs& inputs) {
  double rows = 0;
  for (int64_t j = 0; j < std::ssize(inputs.shard_rows); ++j) rows += training_rows(inputs, j);
  return rows;
}

double steps_an_epoch(const PlanInputs& inputs) {
  if (inputs.means) return 1;
  return std::ceil(training_rows(inputs) / static_cast<double>(inputs.config.train.global_batch));
}

/// How often a step of means passes over the rows.
struct Passes {
  explicit Passes(const MeansFit& fit) {
    const int64_t sweeps = fit.users && fit.videos ? fit.sweeps : 1;
    in_order = (fit.counts ? 0 : 1) + (fit.users ? sweeps : 0) + 1;  // mean, users, errors
    by_video = fit.videos ? 1 + (fit.users ? sweeps : 0) : 0;
  }
  int64_t in_order, by_video;
};

/// Rows of the videos that a rank owns. Shapes: requests of all rows.
double rows_by_video(const StepItems& requests, int64_t rank) {
  double rows = 0;
  for (const std::vector<double>& of_rank : requests.rows) rows += of_rank[rank];
  return rows;
}

// --- Collectives -----------------------------------------------------------------------------------------

/// Messages of an amount that may be an expectation: less than one unit is sent less than every time.
double messages_for(double count) { return std::min(count, 1.); }

class Traffics {
 public:
  explicit Traffics(const PlanInputs& inputs) : inputs_(inputs), n_(inputs.ranks) {}

  bool is_remote(int64_t r, int64_t s) const { return node_of(inputs_, r) != node_of(inputs_, s); }

  /// elements(r, s): what rank r sends to rank s.
  template <class Elements>
  Collective all_to_all(const char* what, double element_bytes, Elements&& elements) const {
    Collective result{"all_to_all", what, std::vector<Traffic>(n_)};
    for (int64_t r = 0; r < n_; ++r) {
      for (int64_t s = 0; s < n_; ++s) {
        if (r == s) continue;
        const double count = elements(r, s);
        const double bytes = count * element_bytes;
        const bool remote = is_remote(r, s);
        Traffic& from = result.ranks[r];
        Traffic& to = result.ranks[s];
        from.messages += messages_for(count);
        from.sent_bytes += bytes;
        to.received_bytes += bytes;
        if (!remote) continue;
        from.remote_messages += messages_for(count);
        from.remote_sent_bytes += bytes;
        to.remote_received_bytes += bytes;
      }
    }
    const Device& device = inputs_.device;
    // The ranks of a node share its network.
    const double remote_bandwidth =
        device.network_bandwidth / static_cast<double>(most_ranks_of_a_node(inputs_));
    for (const Traffic& t : result.ranks) {
      const double local =
          std::max(t.sent_bytes - t.remote_sent_bytes, t.received_bytes - t.remote_received_bytes);
      const double remote = std::max(t.remote_sent_bytes, t.remote_received_bytes);
      if (t.messages == 0 && t.received_bytes == 0) continue;
      const double latency = inputs_.nodes > 1 ? device.network_latency_s : device.link_latency_s;
      const double waiting = latency + std::max(0., t.messages - 1) * device.message_overhead_s;
      result.rounds = 1;
      result.waiting_seconds = std::max(result.waiting_seconds, waiting);
      result.seconds = std::max(
          result.seconds, waiting + local / device.link_bandwidth + remote / remote_bandwidth);
    }
    return result;
  }

  /// The ranks of a node wait for one another; then each reads what the others have for it. elements(r, s): what s reads
  /// of r.
  template <class Elements>
  Collective meet(const char* what, double element_bytes, Elements&& elements) const {
    Collective result{"meet", what, std::vector<Traffic>(n_)};
    double most = 0;
    for (int64_t s = 0; s < n_; ++s) {
      Traffic& t = result.ranks[s];
      for (int64_t r = 0; r < n_; ++r)
        if (r != s && !is_remote(r, s)) t.read_bytes += elements(r, s) * element_bytes;
      most = std::max(most, t.read_bytes);
    }
    result.rounds = 1;  // all arrivals are under way at once
    result.waiting_seconds = inputs_.device.link_latency_s;
    result.seconds = result.waiting_seconds + most / inputs_.device.link_bandwidth;
    return result;
  }

  /// Shapes: elements [ranks].
  Collective all_gather(const char* what, double element_bytes,
                        const std::vector<double>& elements) const {
    Collective result{"all_gather", what, std::vector<Traffic>(n_)};
    const double total = std::accumulate(elements.begin(), elements.end(), 0.) * element_bytes;
    for (int64_t r = 0; r < n_; ++r) {
      const int64_t next = (r + 1) % n_;
      add_to_next(result.ranks[r], r, static_cast<double>(n_ - 1),
                  total - elements[next] * element_bytes);
      add_received(result.ranks[r], r, total - elements[r] * element_bytes);
    }
    set_ring_seconds(result);
    return result;
  }

  Collective all_reduce(const char* what, double element_bytes, double elements) const {
    Collective result{"all_reduce", what, std::vector<Traffic>(n_)};
    const double bytes = element_bytes * elements;
    const auto n = static_cast<double>(n_);
    if (bytes < kSmallAllReduceBytes) {
      const auto rounds = static_cast<double>(std::bit_width(static_cast<uint64_t>(n_ - 1)));
      for (int64_t r = 0; r < n_; ++r) {
        Traffic& t = result.ranks[r];
        t = {.messages = rounds, .sent_bytes = rounds * bytes, .received_bytes = rounds * bytes};
        for (int64_t distance = 1; distance < n_; distance *= 2) {
          if (node_of(inputs_, r) == node_of(inputs_, (r ^ distance) % n_)) continue;
          t.remote_messages += 1;
          t.remote_sent_bytes += bytes;
          t.remote_received_bytes += bytes;
        }
      }
    } else {
      for (int64_t r = 0; r < n_; ++r) {
        const double share = n_ > 1 ? 2 * (n - 1) / n * bytes : 0;
        add_to_next(result.ranks[r], r, 2 * (n - 1), share);
        add_received(result.ranks[r], r, share);
      }
    }
    set_ring_seconds(result);
    return result;
  }

 private:
  void add_to_next(Traffic& t, int64_t rank, double messages, double bytes) const {
    if (n_ == 1) return;
    t.messages += messages;
    t.sent_bytes += bytes;
    if (node_of(inputs_, rank) == node_of(inputs_, (rank + 1) % n_)) return;
    t.remote_messages += messages;
    t.remote_sent_bytes += bytes;
  }
  void add_received(Traffic& t, int64_t rank, double bytes) const {
    if (n_ == 1) return;
    t.received_bytes += bytes;
    if (node_of(inputs_, rank) != node_of(inputs_, (rank + n_ - 1) % n_))
      t.remote_received_bytes += bytes;
  }
  /// All ranks go through the rounds together: the slowest link sets the pace.
  void set_ring_seconds(Collective& collective) const {
    const Device& device = inputs_.device;
    const bool remote = inputs_.nodes > 1;
    const double latency = remote ? device.network_latency_s : device.link_latency_s;
    const double bandwidth =
        remote ? std::min(device.link_bandwidth, device.network_bandwidth) : device.link_bandwidth;
    for (const Traffic& t : collective.ranks) {
      collective.rounds = std::max(collective.rounds, static_cast<int64_t>(t.messages));
      collective.waiting_seconds = std::max(collective.waiting_seconds, t.messages * latency);
      collective.seconds =
          std::max(collective.seconds,
                   t.messages * latency + std::max(t.sent_bytes, t.received_bytes) / bandwidth);
    }
  }

  const PlanInputs& inputs_;
  int64_t n_;
};

/// Of a step of batches, in order.
class StepCollectives {
 public:
  StepCollectives(const PlanInputs& inputs, const StepItems& requests)
      : inputs_(inputs), requests_(requests), sizes_(inputs), traffic_(inputs) {
    for (int64_t r = 0; r < inputs.ranks; ++r)
      shards_.push_back(static_cast<double>(sizes_.shards_of(r).size()));
  }

  std::vector<Collective> on_hosts() {
    if (!sizes_.exact) {
      reduce_dense();
      reduce_tables();
      add(traffic_.all_reduce("loss, norm, requests", kDouble, 5));
      return all_;
    }
    if (inputs_.ranks == 1) {
      gather_shared_rows();
      return all_;
    }
    const auto threads = static_cast<double>(inputs_.config.parallel.threads);
    const double part = kFloat * static_cast<double>(inputs_.item_part);
    in_place_or_sent("item parts", [&](int64_t r, int64_t s) {
      return part * requests_.parts[s][r] + kLong * threads;
    });
    in_place_or_sent("item gradients", [&](int64_t r, int64_t s) {
      return part * requests_.rows[r][s] + kInt * requests_.next_rows[r][s];
    });
    gather_shared_rows();
    if (sizes_.in_slices)
      add(traffic_.all_to_all("dense subtrees", kFloat,
                              [&](int64_t r, int64_t s) { return sizes_.nodes[r] * slice(s); }));
    // Of each rank what it tells all others.
    std::vector<double> told;
    for (int64_t r = 0; r < inputs_.ranks; ++r) {
      const double floats =
          sizes_.in_slices ? slice(r) : sizes_.nodes[r] * static_cast<double>(sizes_.dense);
      told.push_back(kDouble * (shards_[r] * static_cast<double>(1 + sizes_.trained_tables) + 1) +
                     2 * kFloat * std::ceil(floats / 2));
    }
    constexpr const char* kTold = "dense gradients";  // with losses, norms and requests
    if (inputs_.nodes > 1)
      add(traffic_.all_gather(kTold, 1, told));
    else
      add(traffic_.meet(kTold, 1, [&](int64_t r, int64_t) { return told[r]; }));
    return all_;
  }

  /// An answer for each row; the host asks whether to stop only where it looks at the losses.
  std::vector<Collective> on_devices() {
    if (!sizes_.exact) {
      reduce_dense();
      reduce_loss();
      reduce_tables();
      return with_norms();
    }
    if (inputs_.ranks > 1) {
      ids_to_owners();
      answers("item parts", inputs_.item_part, requests_.rows);
      gradients_to_owners(inputs_.item_part);
    }
    subtrees();
    return with_norms();
  }

  /// On devices. Rows of tables where the fused engine sends parts.
  std::vector<Collective> through_libtorch() {
    if (!sizes_.exact) {
      reduce_loss();
      reduce_dense();
      reduce_tables();
      return with_norms();
    }
    if (!sizes_.item_cols.empty()) ids_to_owners();
    for (const int64_t cols : sizes_.item_cols) answers("item rows", cols, requests_.rows);
    subtrees();
    for (const int64_t cols : sizes_.item_cols) gradients_to_owners(cols);
    return with_norms();
  }

 private:
  void add(Collective collective) { all_.push_back(std::move(collective)); }
  /// What ranks of a node read where it lies and others are sent. bytes(r, s): of r, for s.
  template <class Bytes>
  void in_place_or_sent(const char* what, Bytes&& bytes) {
    if (inputs_.nodes > 1)
      add(traffic_.all_to_all(what, 1, [&](int64_t r, int64_t s) {
        return traffic_.is_remote(r, s) ? bytes(r, s) : 0;
      }));
    if (inputs_.nodes < inputs_.ranks) add(traffic_.meet(what, 1, bytes));
  }
  /// Of each item of the step its number, and gradients (trainer/steps/shared_tables.h).
  void gather_shared_rows() {
    if (sizes_.shared_cols == 0) return;
    std::vector<double> floats;
    for (const double items : requests_.computed)
      floats.push_back(items * static_cast<double>(1 + sizes_.shared_cols));
    add(traffic_.all_gather("items of codes", kLong, std::vector<double>(inputs_.ranks, 1)));
    add(traffic_.all_gather("gradients of codes", kFloat, floats));
  }
  /// Of the sum of the dense gradients that a rank finishes for all.
  double slice(int64_t rank) const {
    return static_cast<double>(sizes_.dense * (rank + 1) / sizes_.ranks -
                               sizes_.dense * rank / sizes_.ranks);
  }
  template <class Elements>
  void exchange(const char* what, double bytes, Elements&& elements) {
    add(traffic_.all_to_all(what, bytes, elements));
  }
  void to_owners(const char* what, double bytes) {
    exchange(what, bytes, [&](int64_t r, int64_t s) { return requests_.rows[r][s]; });
  }
  void ids_to_owners() { to_owners("item ids", kInt); }
  void gradients_to_owners(int64_t cols) {
    to_owners("item gradients", kFloat * static_cast<double>(cols));
  }
  void answers(const char* what, int64_t cols, const std::vector<std::vector<double>>& asked) {
    exchange(what, kFloat * static_cast<double>(cols),
             [&](int64_t r, int64_t s) { return asked[s][r]; });
  }
  void subtrees() {
    add(traffic_.all_to_all("dense subtrees", kFloat, [&](int64_t r, int64_t s) {
      return sizes_.nodes[r] * sizes_.own_dense[s];
    }));
  }
  void publish() { add(traffic_.all_gather("dense parameters", kFloat, sizes_.own_dense)); }
  void reduce_loss() { add(traffic_.all_reduce("loss", kDouble, 1)); }
  void reduce_dense() {
    add(traffic_.all_reduce("dense gradients", kFloat, static_cast<double>(sizes_.dense)));
  }
  void reduce_tables() {
    for (const ParameterSpec& spec : inputs_.parameters)
      if (spec.kind == ParameterKind::kItemTable)
        add(traffic_.all_reduce("item gradients", kFloat, static_cast<double>(spec.size())));
  }
  std::vector<Collective> with_norms() {
    if (sizes_.exact) add(traffic_.all_gather("leaf losses", kDouble, shards_));
    add(traffic_.all_gather("gradient norms", kDouble, shards_));
    if (sizes_.exact) publish();
    return all_;
  }

  const PlanInputs& inputs_;
  const StepItems& requests_;
  const Sizes sizes_;
  const Traffics traffic_;
  std::vector<double> shards_;  // [ranks] how many
  std::vector<Collective> all_;
};

std::vector<Collective> means_collectives(const PlanInputs& inputs, const StepItems& requests) {
  const Sizes sizes(inputs);
  const Traffics traffic(inputs);
  const MeansFit& fit = *inputs.means;
  const std::vector<int64_t> item_begin = even_blocks(inputs.items, sizes.shards);
  const std::vector<double> ones(inputs.ranks, 1);
  std::vector<double> shards, users(inputs.ranks, 0), items;
  for (int64_t r = 0; r < inputs.ranks; ++r) {
    const Range own = sizes.shards_of(r);
    shards.push_back(static_cast<double>(own.size()));
    for (int64_t j = own.begin; j < own.end; ++j)
      users[r] += static_cast<double>(inputs.shard_users[j]);
    items.push_back(static_cast<double>(item_begin[own.end] - item_begin[own.begin]));
  }
  std::vector<Collective> all;
  const auto add = [&](Collective collective, int64_t times = 1) {
    collective.times = times;
    all.push_back(std::move(collective));
  };
  const auto to_all = [&](const char* what, const std::vector<double>& elements, int64_t times) {
    add(traffic.all_gather("sizes", kLong, ones), times);
    add(traffic.all_gather(what, kDouble, elements), times);
  };
  const auto rows = [&](const char* what, double bytes) {
    add(traffic.all_to_all(what, bytes, [&](int64_t r, int64_t s) { return requests.rows[r][s]; }));
  };
  const auto moments = [&](const std::vector<double>& groups) {
    if (!fit.by_moments) return;
    for (const char* what : {"rows of groups", "sums of groups", "squares of groups"})
      to_all(what, groups, 1);
  };
  if (!fit.counts) {
    std::vector<double> of_shards;
    for (const double own : shards) of_shards.push_back(3 * own);
    add(traffic.all_gather("moments of shards", kDouble, of_shards));
  }
  if (fit.videos) {
    to_all("users of ranks", ones, 1);
    add(traffic.all_to_all("row counts", kLong, [](int64_t, int64_t) { return 1.; }));
    rows("videos of rows", kInt);
    rows("users of rows", kInt);
    rows("targets of rows", kFloat);
    rows("weights of rows", kFloat);
    const int64_t times = Passes(fit).by_video;
    to_all("user means", users, times);
    moments(items);
    to_all("video means", items, times);
  }
  if (fit.users) moments(users);
  add(traffic.all_gather("sums of shards", kDouble, shards));
  add(traffic.all_reduce("request to stop", kInt, 1));
  return all;
}

// --- Memory ----------------------------------------------------------------------------------------------

int64_t to_bytes(double bytes) { return static_cast<int64_t>(std::ceil(bytes)); }

/// Items whose parts a rank may have to compute.
double held_items(const PlanInputs& inputs, const Sizes& sizes) {
  return static_cast<double>(inputs.items) / (sizes.exact ? static_cast<double>(sizes.ranks) : 1);
}

/// The samples of a step, what they need of tables or parts, and what of it is under way between ranks.
double sample_bytes(const PlanInputs& inputs, const Sizes& sizes, int64_t rank, double samples,
                    const StepItems& requests) {
  samples = std::ceil(samples);
  if (sizes.gpu && !sizes.fused) {
    // user row, item, label, ordinal; table rows and their gradients; rows going out and coming in; the route.
    double a_sample = 16 + kFloat * 2 * static_cast<double>(sizes.table_cols);
    if (sizes.exact)
      for (const int64_t cols : sizes.item_cols) a_sample += kFloat * 2 * static_cast<double>(cols);
    if (sizes.exact && !sizes.item_cols.empty()) a_sample += 20;
    if (!sizes.exact) a_sample += 4;
    return a_sample * samples;
  }
  double going = 0, coming = 0, fetched = 0;
  for (int64_t other = 0; other < sizes.ranks; ++other) {
    if (other == rank) continue;
    going += requests.rows[rank][other];
    coming += requests.rows[other][rank];
    fetched += requests.parts[rank][other];
  }
  const double part = kFloat * static_cast<double>(inputs.item_part);
  const double user_part = kFloat * static_cast<double>(inputs.user_part);
  double users = 0;
  for (int64_t j = sizes.shards_of(rank).begin; j < sizes.shards_of(rank).end; ++j)
    users += static_cast<double>(inputs.shard_users[j]);
  const double items = held_items(inputs, sizes);
  if (sizes.gpu) {
    // Gradients of a row's parts, and what those of weights are made of; of ids the same, with their parts.
    const auto& [user, item, row, packed] = inputs.arithmetic;
    const auto operands = [](const fused::Work& work) {
      return kFloat * (work.inputs + work.slopes);
    };
    const double answers = sizes.exact && sizes.ranks > 1 ? 2 * part + 8 : 0;
    return samples * (user_part + part + operands(row) + answers) +
           users * (2 * user_part + operands(user)) + items * (2 * part + operands(item)) +
           kFloat * packed;
  }
  // Of two steps five columns and the route; a gradient of its item's part. Parts of items and the sums of their gradients, of
  // all that are held: those of a step are written. Those of users, of the leaves that are computed at once.
  const auto units = static_cast<double>(sizes.units(rank));
  const double leaves = std::min(units, static_cast<double>(inputs.config.parallel.threads));
  return samples * (56 + part) + (going + coming) * (part + 8) + (2 * items + fetched) * part +
         2 * leaves / units * std::min(users, samples) * user_part;
}

int64_t columns_of(const PlanInputs& inputs) {
  return std::accumulate(inputs.columns.begin(), inputs.columns.end(), int64_t{0});
}

/// Of the leaves that are computed at once.
double activation_bytes(const PlanInputs& inputs, const Sizes& sizes, int64_t rank,
                        double samples) {
  const auto units = static_cast<double>(sizes.units(rank));
  const double at_once = std::min(units, static_cast<double>(inputs.config.parallel.threads));
  const double a_leaf = std::ceil(samples) / units;
  if (sizes.fused) {  // a block of rows
    const double block = kFloat * static_cast<double>(inputs.workspace);
    if (!sizes.gpu) return at_once * block;
    return block <= kTeamBytes ? 0 : kGpuTeams * block;
  }
  // Features, dropout, activations and their gradients; on the host the gathered rows of tables and theirs.
  auto a_row = static_cast<double>(columns_of(inputs) + inputs.dropout_width);
  if (!inputs.device.gpu) a_row += 2 * static_cast<double>(sizes.table_cols);
  for (const ParameterSpec& spec : inputs.parameters)
    if (spec.kind == ParameterKind::kDense && spec.rows > 1)
      a_row += static_cast<double>(2 * spec.rows + 4 * spec.cols);
  return kFloat * a_row * a_leaf * at_once;
}

/// Of the one step of means.
std::vector<MemoryUse> means_memory(const PlanInputs& inputs, const Sizes& sizes, int64_t rank,
                                    double samples, int64_t users, const StepItems& requests) {
  const std::vector<int64_t> item_begin = even_blocks(inputs.items, sizes.shards);
  const Range own = sizes.shards_of(rank);
  const int64_t items = item_begin[own.end] - item_begin[own.begin];
  const auto bytes = static_cast<int64_t>(kDouble);
  using enum MemoryPhase;
  if (!inputs.means->videos)
    return {{"means of users and videos", kStepAlone, bytes * (users + inputs.items)}};
  const double brought = rows_by_video(requests, rank);
  // Rows here: video, user, target and weight, whose each is and where it goes, a column on its way. There: where each goes
  // among its video's, columns that came.
  return {{"means of all users and videos", kStepAlone,
           bytes * (users + inputs.items + inputs.users + items)},
          {"rows by video, 12 B a row", kStep, to_bytes(12 * brought) + 8 * items},
          {"rows to their videos", kStepAlone,
           to_bytes(32 * samples + 24 * brought) + 4 * inputs.items}};
}

std::vector<MemoryUse> memory_of(const PlanInputs& inputs, const Sizes& sizes, int64_t rank,
                                 double samples, const StepItems& requests) {
  const Range shards = sizes.shards_of(rank);
  const bool gpu = inputs.device.gpu;
  int64_t rows = 0, users = 0, largest_shard = 0;
  for (int64_t j = shards.begin; j < shards.end; ++j) {
    rows += inputs.shard_rows[j];
    users += inputs.shard_users[j];
    largest_shard = std::max(largest_shard, inputs.shard_rows[j]);
  }
  int64_t item_tables = 0;
  for (const ParameterSpec& spec : inputs.parameters)
    if (spec.kind == ParameterKind::kItemTable) item_tables += spec.size();
  const int64_t held = sizes.held[rank];
  const auto dense = static_cast<double>(sizes.dense);
  const double own_dense = sizes.own_dense[rank];
  const double own_nodes = sizes.nodes[rank];
  const double all_nodes = std::accumulate(sizes.nodes.begin(), sizes.nodes.end(), 0.);
  // Leaf gradients, and in the exact form the subtrees on their way out and in, and their sum; on devices a copy to
  // publish.
  const double own_sum = gpu ? own_dense : dense / static_cast<double>(sizes.ranks);
  double gradient_buffers = static_cast<double>(sizes.leaves(rank)) * dense;
  if (sizes.exact) gradient_buffers += own_nodes * dense + dense;
  if (sizes.exact && (gpu || sizes.in_slices))
    gradient_buffers += all_nodes * own_sum + own_sum;
  else if (sizes.exact && inputs.nodes > 1)
    gradient_buffers += all_nodes * dense;

  const bool temporal = inputs.config.data.validation.kind == ValidationKind::kTemporal &&
                        inputs.config.data.validation.fraction > 0;
  using enum MemoryPhase;
  std::vector<MemoryUse> uses{
      {gpu ? "CUDA context and libraries" : "process and libraries", kAlways,
       gpu           ? kGpuContextBytes
       : sizes.fused ? kProcessBytes
                     : kTorchProcessBytes},
      {"samples, 16 B a row", kTraining, 16 * rows + 4 * users}};
  if (gpu && sizes.fused)
    uses.push_back({"rows prepared at once, 136 B each", kTraining,
                    kPreparedRowBytes * std::min(rows, kPreparedRows)});
  if (!inputs.means)
    uses.push_back(
        {"columns", kAlways,
         to_bytes(kFloat) * (inputs.items * inputs.columns[1] + users * inputs.columns[0])});
  uses.push_back({"parameters", kAlways, to_bytes(kFloat * (static_cast<double>(held) + dense))});
  uses.push_back({"gradients", kTraining, to_bytes(kFloat) * held});
  uses.push_back(
      {"optimizer state", kTraining, to_bytes(kFloat) * sizes.slots * sizes.updated[rank]});
  if (inputs.columns[2] > 0)
    uses.push_back({"columns of rows", kTraining, to_bytes(kFloat) * rows * inputs.columns[2]});
  if (inputs.group > 1)
    uses.push_back({"what negatives are drawn from", kTraining, 12 * rows + 8 * users});
  if (!gpu) {
    uses.push_back({"ids of the rank's users", kAlways, 16 * users});
    uses.push_back({"marks and places of ids", kTraining,
                    5 * users + 8 * inputs.items + 6 * to_bytes(held_items(inputs, sizes))});
  }
  if (inputs.means) {
    for (const MemoryUse& use : means_memory(inputs, sizes, rank, samples, users, requests))
      uses.push_back(use);
  } else {
    uses.push_back({"dense gradients, exchange", kStep, to_bytes(kFloat * gradient_buffers)});
    if (sizes.shared_cols > 0) {
      const double items = std::accumulate(requests.computed.begin(), requests.computed.end(), 0.);
      uses.push_back({"gradients of shared rows", kStep,
                      to_bytes(kFloat * (items + requests.computed[rank]) *
                               static_cast<double>(1 + sizes.shared_cols))});
    }
    uses.push_back({gpu && !sizes.fused ? "samples, table rows, exchange"
                    : gpu               ? "rows and ids of a step, exchange"
                                        : "samples, item parts, exchange",
                    kStep, to_bytes(sample_bytes(inputs, sizes, rank, samples, requests))});
    uses.push_back(
        {"activations", kStep, to_bytes(activation_bytes(inputs, sizes, rank, samples))});
  }
  if (!gpu)
    uses.push_back({"reading shards", kLoading, 32 * largest_shard + (temporal ? 8 * rows : 0)});
  // On devices training stays till the end; an evaluation in between has all of it beside it too.
  const MemoryPhase evaluation =
      gpu || inputs.config.evaluate.every > 0 ? kValidation : kEvaluation;
  const int64_t parts =
      gpu && !sizes.fused
          ? (sizes.exact ? to_bytes(kFloat) * item_tables : 0)
          : to_bytes(kFloat) * (users * inputs.user_part + inputs.items * inputs.item_part);
  uses.push_back({gpu && !sizes.fused ? "item tables in full" : "parts of users and items",
                  evaluation, parts});
  // The file of a checkpoint is made in memory.
  if (!gpu) {
    int64_t written = 0;
    for (size_t a = 0; a < inputs.parameters.size(); ++a)
      written += sizes.owned(a, rank).size() * inputs.parameters[a].cols;
    uses.push_back(
        {"checkpoint being written", kCheckpoint, to_bytes(kFloat) * written * (1 + sizes.slots)});
    const double held_out = inputs.config.data.validation.fraction * static_cast<double>(rows);
    if (held_out > 0 && evaluation == kEvaluation)
      uses.push_back({"validation: rows held out, parts", kValidation,
                      to_bytes(kHeldOutRowBytes * held_out) + parts});
    uses.push_back({"test table, scores, metrics", evaluation,
                    kTestPairBytes * inputs.test_pairs +
                        kScoredPairBytes * inputs.test_pairs / sizes.ranks +
                        (inputs.test_pairs > 0 ? kTestItemBytes * inputs.items : 0)});
  }
  return uses;
}

/// What the fullest node (cpu) or device (gpu) needs.
int64_t needed_bytes(const PlanInputs& inputs, const Sizes& sizes) {
  const std::vector<double> samples = samples_of_ranks(inputs);
  const StepItems requests = expected_requests(inputs, samples);
  std::vector<int64_t> of_node(inputs.nodes, 0);
  int64_t most = 0;
  for (int64_t rank = 0; rank < inputs.ranks; ++rank) {
    const int64_t bytes = peak_bytes(memory_of(inputs, sizes, rank, samples[rank], requests));
    int64_t& node = of_node[node_of(inputs, rank)];
    node += bytes;
    most = std::max(most, inputs.device.gpu ? bytes : node);
  }
  return most;
}

int64_t fewest_ranks_that_fit(const PlanInputs& inputs) {
  const int64_t a_node = most_ranks_of_a_node(inputs);
  PlanInputs other = inputs;
  for (other.ranks = inputs.ranks + 1; other.ranks <= std::ssize(inputs.shard_rows);
       ++other.ranks) {
    other.nodes = (other.ranks + a_node - 1) / a_node;
    if (needed_bytes(other, Sizes(other)) <= inputs.device.memory_bytes) return other.ranks;
  }
  return 0;
}

// --- Time ------------------------------------------------------------------------------------------------

double update_flops_an_element(const Sizes& sizes) {
  if (sizes.sgd) return sizes.slots == 1 ? 7 : 5;
  return 17;
}

/// Bytes a device reads and writes in a step.
double device_traffic(const PlanInputs& inputs, const Sizes& sizes, int64_t rank, double samples) {
  double floats_a_row = 4 + 5 * static_cast<double>(sizes.table_cols) +
                        2 * static_cast<double>(columns_of(inputs) + inputs.dropout_width);
  for (const ParameterSpec& spec : inputs.parameters)
    if (spec.kind == ParameterKind::kDense && spec.rows > 1)
      floats_a_row += static_cast<double>(3 * spec.rows + 6 * spec.cols);
  const double update = static_cast<double>((4 + 2 * sizes.slots) * sizes.held[rank]);
  const double leaves = 3 * static_cast<double>(sizes.units(rank) * sizes.dense);
  return kFloat * (floats_a_row * samples + update + leaves);
}

/// Distinct users of a rank's leaves.
double users_of_step(const PlanInputs& inputs, const Sizes& sizes, int64_t rank) {
  const Range shards = sizes.shards_of(rank);
  double users = 0;
  for (int64_t j = shards.begin; j < shards.end; ++j) {
    const auto of_shard = static_cast<double>(inputs.shard_users[j]);
    users += distinct(of_shard, of_shard, training_rows(inputs, j) / steps_an_epoch(inputs));
  }
  return users;
}

/// Operations of a rank's step before its update.
double operations_of(const PlanInputs& inputs, double samples, double users, double items) {
  const fused::Arithmetic& each = inputs.arithmetic;
  return each.row.operations() * samples + each.user.operations() * users +
         each.item.operations() * items;
}

std::vector<double> cpu_seconds(const PlanInputs& inputs, const Sizes& sizes, int64_t r,
                                double samples, double users, double items) {
  const auto threads = static_cast<double>(inputs.config.parallel.threads);
  const auto units = static_cast<double>(sizes.units(r));
  // Leaves are shared out whole: with more threads than leaves, some have none.
  const double rounds = std::ceil(units / threads) / units;
  const double gather = samples * kGatherRow_s + held_items(inputs, sizes) * kRouteItem_s;
  const double sum = static_cast<double>(sizes.leaves(r) * sizes.dense) * kLeafElement_s;
  const double update = static_cast<double>(sizes.updated[r]) *
                        (sizes.sgd ? kSgdElement_s : kAdamElement_s) / threads;
  if (!sizes.fused)
    return {(units * kTorchLeaf_s + operations_of(inputs, samples, users, items) * kTorchFlop_s) *
                rounds,
            gather + sum, update};
  const fused::Arithmetic& each = inputs.arithmetic;
  return {samples * (kFusedRow_s + each.row.operations() * kFusedFlop_s) * rounds,
          ((users + items) * kFusedId_s + operations_of(inputs, 0, users, items) * kFusedFlop_s) *
              rounds,
          gather + sum, update};
}

/// As `busy_parts` names them.
std::vector<double> means_seconds(const PlanInputs& inputs, const Sizes& sizes, int64_t r,
                                  double samples, const StepItems& requests) {
  const auto threads = static_cast<double>(inputs.config.parallel.threads);
  const auto units = static_cast<double>(sizes.units(r));
  const Passes passes(*inputs.means);
  const double in_order = samples * kMeansRow_s * static_cast<double>(passes.in_order) *
                          std::ceil(units / threads) / units;
  if (!inputs.means->videos) return {in_order};
  const double brought = rows_by_video(requests, r);
  return {in_order, (samples + brought) * kBroughtRow_s,
          brought * kMeansVideoRow_s * static_cast<double>(passes.by_video) / threads};
}

DeviceStepCounts step_on_device(const PlanInputs& inputs, const Sizes& sizes, int64_t r,
                                double samples, double users, double items) {
  const auto side = [&](double count, int64_t tables, Side of, int64_t part) {
    return DeviceStepCounts::Ids{
        .count = count,
        .inputs = static_cast<double>(tables + inputs.columns[static_cast<size_t>(of)]),
        .trained = static_cast<double>(tables),
        .part = static_cast<double>(part)};
  };
  return {.arithmetic = inputs.arithmetic,
          .rows = samples,
          .users = side(users, sizes.user_cols, Side::kUser, inputs.user_part),
          .items = side(items, sizes.table_cols - sizes.user_cols, Side::kItem, inputs.item_part),
          .leaves = static_cast<double>(sizes.leaves(r)),
          .dense = static_cast<double>(sizes.dense),
          .updated = static_cast<double>(sizes.held[r]),
          .slots = sizes.slots,
          .update_operations = update_flops_an_element(sizes),
          .exchanges = sizes.exact && sizes.ranks > 1};
}

/// Through libtorch: launches, arithmetic and memory, as `busy_parts` names them.
std::vector<double> torch_device_seconds(const PlanInputs& inputs, const Sizes& sizes, int64_t r,
                                         double samples, double flops) {
  const Device& device = inputs.device;
  const auto units = static_cast<double>(sizes.units(r));
  const auto kernels = units * static_cast<double>(6 * sizes.matrices + 4 * sizes.tables + 8) +
                       static_cast<double>(2 * std::ssize(inputs.parameters));
  return {
      kernels * kTorchLaunch_s, flops / (kGpuFlopShare * device.fp32),
      device_traffic(inputs, sizes, r, samples) / (kGpuBandwidthShare * device.memory_bandwidth)};
}

void set_times(Plan& plan, const PlanInputs& inputs, const Sizes& sizes, const StepItems& requests) {
  const Device& device = inputs.device;
  if (device.gpu && !sizes.fused)
    plan.busy_parts = {"kernel launches", "arithmetic", "device memory"};
  else if (inputs.means && inputs.means->videos)
    plan.busy_parts = {"passes over rows", "rows to their videos", "passes by video"};
  else if (inputs.means)
    plan.busy_parts = {"passes over rows"};
  else if (inputs.config.model.engine == EngineName::kTorch)
    plan.busy_parts = {"leaves", "gather, route, sum", "update"};
  else if (!device.gpu)
    plan.busy_parts = {"rows", "users and videos", "gather, route, sum", "update"};
  if (!device.gpu)
    plan.oversubscription = std::max(
        1., static_cast<double>(most_ranks_of_a_node(inputs) * inputs.config.parallel.threads) /
                static_cast<double>(device.per_node));
  for (int64_t r = 0; r < inputs.ranks; ++r) {
    RankPlan& rank = plan.ranks[r];
    const double users = users_of_step(inputs, sizes, r), items = requests.computed[r];
    const double flops = operations_of(inputs, rank.samples, users, items);
    if (!inputs.means)
      plan.flops += flops + static_cast<double>(sizes.updated[r]) * update_flops_an_element(sizes);
    if (device.gpu && sizes.fused) {
      rank.kernels =
          device_kernels(step_on_device(inputs, sizes, r, rank.samples, users, items), device);
      for (const DeviceKernel& kernel : rank.kernels) rank.compute_seconds += kernel.seconds;
      const double rows = rank.samples * static_cast<double>(plan.steps);
      plan.epoch_seconds = std::max(plan.epoch_seconds, device_epoch_seconds(rows, device));
    } else if (device.gpu) {
      rank.busy_seconds = torch_device_seconds(inputs, sizes, r, rank.samples, flops);
      rank.compute_seconds = *std::max_element(rank.busy_seconds.begin(), rank.busy_seconds.end());
    } else {
      rank.busy_seconds = inputs.means ? means_seconds(inputs, sizes, r, rank.samples, requests)
                                       : cpu_seconds(inputs, sizes, r, rank.samples, users, items);
      for (double& seconds : rank.busy_seconds) seconds *= plan.oversubscription;
      rank.compute_seconds =
          std::accumulate(rank.busy_seconds.begin(), rank.busy_seconds.end(), 0.);
    }
    plan.compute_seconds = std::max(plan.compute_seconds, rank.compute_seconds);
  }
  for (const Collective& collective : plan.collectives) {
    const auto times = static_cast<double>(collective.times);
    plan.communication_seconds += times * collective.seconds;
    plan.waiting_seconds += times * collective.waiting_seconds;
    plan.waits += collective.rounds > 0 ? collective.times : 0;
    plan.rounds += collective.times * collective.rounds;
  }
}

void check(const PlanInputs& inputs) {
  check_world(std::ssize(inputs.shard_rows), {0, static_cast<int>(inputs.ranks)});
  if (inputs.nodes > inputs.ranks)
    user_error(
        "--nodes {}: there are {} ranks, expected at most one node a rank; give more --ranks",
        inputs.nodes, inputs.ranks);
  const int64_t a_node = most_ranks_of_a_node(inputs);
  if (inputs.device.gpu && a_node > inputs.device.per_node)
    user_error("--nodes {}: {} ranks a node, but a node has {} devices; give at least --nodes {}",
               inputs.nodes, a_node, inputs.device.per_node,
               (inputs.ranks + inputs.device.per_node - 1) / inputs.device.per_node);
}

/// All but whether it fits.
Plan plan_of_step(const PlanInputs& inputs) {
  check(inputs);
  const Sizes sizes(inputs);
  Plan plan;
  plan.training_rows = static_cast<int64_t>(std::llround(training_rows(inputs)));
  if (plan.training_rows == 0)
    user_error("no training rows are left after the split; lower data.validation.fraction");
  plan.steps = static_cast<int64_t>(steps_an_epoch(inputs));
  for (const ParameterSpec& spec : inputs.parameters)
    plan.parameters += spec.computed ? 0 : spec.size();

  const std::vector<double> samples = samples_of_ranks(inputs);
  const StepItems requests = expected_requests(inputs, samples);
  int64_t total = 0, most = 0;
  for (int64_t r = 0; r < inputs.ranks; ++r) {
    RankPlan rank{.node = node_of(inputs, r), .shards = sizes.shards_of(r), .samples = samples[r]};
    for (int64_t j = rank.shards.begin; j < rank.shards.end; ++j) {
      rank.rows += inputs.shard_rows[j];
      rank.users += inputs.shard_users[j];
    }
    for (size_t a = 0; a < inputs.parameters.size(); ++a) rank.owned.push_back(sizes.owned(a, r));
    rank.memory = memory_of(inputs, sizes, r, rank.samples, requests);
    total += rank.rows;
    most = std::max(most, rank.rows);
    plan.ranks.push_back(std::move(rank));
  }
  const auto largest = std::max_element(inputs.shard_rows.begin(), inputs.shard_rows.end());
  plan.largest_shard = largest - inputs.shard_rows.begin();
  plan.largest_share = static_cast<double>(*largest) / static_cast<double>(total);
  plan.speed_up_bound = static_cast<double>(total) / static_cast<double>(most);
  plan.collectives = step_collectives(inputs, requests);
  set_times(plan, inputs, sizes, requests);
  return plan;
}

}  // namespace

std::vector<double> samples_of_ranks(const PlanInputs& inputs) {
  const Sizes sizes(inputs);
  std::vector<double> samples(inputs.ranks, 0);
  for (int64_t r = 0; r < inputs.ranks; ++r) {
    const Range shards = sizes.shards_of(r);
    for (int64_t j = shards.begin; j < shards.end; ++j) samples[r] += training_rows(inputs, j);
    samples[r] *= static_cast<double>(inputs.group) / steps_an_epoch(inputs);
  }
  return samples;
}

StepItems expected_requests(const PlanInputs& inputs, const std::vector<double>& samples) {
  const Sizes sizes(inputs);
  StepItems requests(inputs.ranks);
  if (sizes.item_cols.empty()) return requests;
  const std::vector<int64_t> begin = even_blocks(inputs.items, sizes.shards);
  const auto items = static_cast<double>(inputs.items);
  const double all = std::accumulate(samples.begin(), samples.end(), 0.);
  for (int64_t s = 0; s < inputs.ranks; ++s) {
    if (!sizes.exact && !inputs.means) {
      requests.rows[s][s] = samples[s];
      requests.parts[s][s] = requests.computed[s] = distinct(items, items, samples[s]);
      continue;
    }
    const Range own = sizes.shards_of(s);
    const auto own_items = static_cast<double>(begin[own.end] - begin[own.begin]);
    for (int64_t r = 0; r < inputs.ranks; ++r) {
      requests.rows[r][s] = samples[r] * own_items / items;
      requests.parts[r][s] = distinct(own_items, items, samples[r]);
    }
    requests.computed[s] = distinct(own_items, items, all);
  }
  requests.next_rows = requests.rows;
  return requests;
}

std::vector<Collective> step_collectives(const PlanInputs& inputs, const StepItems& requests) {
  if (inputs.means) return means_collectives(inputs, requests);
  StepCollectives step(inputs, requests);
  return !inputs.device.gpu                                 ? step.on_hosts()
         : inputs.config.model.engine == EngineName::kTorch ? step.through_libtorch()
                                                            : step.on_devices();
}

int64_t peak_bytes(const std::vector<MemoryUse>& uses) {
  const auto in = [&](MemoryPhase phase) {
    int64_t bytes = 0;
    for (const MemoryUse& use : uses) bytes += use.phase == phase ? use.bytes : 0;
    return bytes;
  };
  using enum MemoryPhase;
  const int64_t beside_steps = std::max({in(kStepAlone), in(kCheckpoint), in(kValidation)});
  const int64_t training = in(kTraining) + std::max(in(kLoading), in(kStep) + beside_steps);
  return in(kAlways) + std::max(training, in(kEvaluation));
}

Plan make_plan(const PlanInputs& inputs) {
  Plan plan = plan_of_step(inputs);
  plan.memory_bytes = needed_bytes(inputs, Sizes(inputs));
  plan.fits = plan.memory_bytes <= inputs.device.memory_bytes;
  plan.ranks_needed = plan.fits ? inputs.ranks : fewest_ranks_that_fit(inputs);
  return plan;
}

std::vector<ScalingPoint> scaling_of(const PlanInputs& inputs) {
  std::vector<ScalingPoint> points;
  const int64_t a_node = most_ranks_of_a_node(inputs);
  PlanInputs other = inputs;
  for (other.ranks = 1; other.ranks <= std::ssize(inputs.shard_rows); other.ranks *= 2) {
    other.nodes = (other.ranks + a_node - 1) / a_node;
    const Plan plan = plan_of_step(other);
    ScalingPoint point{.ranks = other.ranks,
                       .nodes = other.nodes,
                       .waits = plan.waits,
                       .rounds = plan.rounds,
                       .compute_seconds = plan.compute_seconds,
                       .communication_seconds = plan.communication_seconds,
                       .waiting_seconds = plan.waiting_seconds};
    for (int64_t r = 0; r < other.ranks; ++r) {
      double incoming = 0;
      for (const Collective& collective : plan.collectives)
        incoming += static_cast<double>(collective.times) *
                    (collective.ranks[r].received_bytes + collective.ranks[r].read_bytes);
      point.incoming_bytes = std::max(point.incoming_bytes, incoming);
      point.peak_bytes = std::max(point.peak_bytes, peak_bytes(plan.ranks[r].memory));
    }
    for (const Collective& collective : plan.collectives) {
      const double seconds = static_cast<double>(collective.times) * collective.seconds;
      if (seconds <= point.longest_seconds) continue;
      point.longest = collective.operation + ", " + collective.what;
      point.longest_seconds = seconds;
    }
    points.push_back(std::move(point));
  }
  return points;
}

}  // namespace kt
