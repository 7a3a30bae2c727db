#include <algorithm>
#include <optional>

#include "launch/base/errors.h"
#include "launch/process/device.h"
#include "trainer/devices/device_norms.h"
#include "trainer/devices/device_samples.h"
#include "trainer/devices/device_work.h"
#include "trainer/devices/fused_kernels.h"
#include "trainer/devices/fused_model.h"
#include "trainer/devices/fused_predictor.h"
#include "trainer/devices/fused_step.h"
#include "trainer/devices/item_requests.h"
#include "trainer/devices/step_rows.h"
#include "trainer/devices/step_window.h"

namespace kt {
namespace {

/// Rows prepared at once: so many that what is enqueued for them costs little beside their steps.
constexpr int64_t kRowsAtOnce = int64_t{1} << 22;
/// Of the free memory, for them.
constexpr int64_t kRoomShare = 8;

int64_t steps_at_once(const Schedule& schedule, int64_t group, Communicator& control) {
  size_t free = 0, all = 0;
  check_cuda(cudaMemGetInfo(&free, &all), "cudaMemGetInfo");
  int64_t rows =
      std::min(kRowsAtOnce, static_cast<int64_t>(free) / kRoomShare / StepWindow::kBytesOfRow);
  control.all_reduce(std::span(&rows, 1), Reduction::kMin);
  const int64_t of_step =
      std::max<int64_t>(group * schedule.samples() / std::max<int64_t>(schedule.steps(), 1), 1);
  return std::clamp<int64_t>(rows / of_step, 1, std::max<int64_t>(schedule.steps(), 1));
}

}  // namespace

class FusedStep::State final : public Work {
 public:
  State(const Problem& problem, const Parameters& parameters, Form form, const Schedule& schedule,
        std::span<const ShardSamples> samples, const NegativeSampler* negatives,
        Communicator& devices, Communicator& control)
      : engine_(*problem.engine),
        objective_(problem.system.objective),
        schedule_(schedule),
        comm_(devices),
        shards_(parameters.shards()),
        held_items_(parameters.held_items()),
        rows_(schedule, shards_, negatives ? negatives->group() : 1),
        model_(problem.system.graph, form, stream_),
        weights_(parameters, problem.config.train.clip_norm, devices, stream_),
        norms_(model_, engine_, parameters, weights_, devices, stream_),
        columns_{DeviceArray<float>(problem.columns.users, stream_),
                 DeviceArray<float>(problem.columns.items, stream_)} {
    if (weights_.exact() && !alone()) requests_.emplace(parameters, devices, control, stream_);
    for (const Side side : {Side::kUser, Side::kItem}) reserve(side, parameters);
    reserve_rows();
    at_once_ = steps_at_once(schedule, objective_.group(), control);
    const std::vector<int64_t> items = first_items(parameters);
    window_.emplace(rows_, parameters, requests_ ? &*requests_ : nullptr, items, at_once_, stream_);
    wait();
    samples_.emplace(
        DeviceSamples::Source{.schedule = schedule,
                              .rows = rows_,
                              .shards = shards_,
                              .samples = samples,
                              .objective = objective_,
                              .negatives = negatives,
                              .columns = step_columns(problem).rows,
                              .column_count = engine_.column_count(Side::kRow),
                              .seed = static_cast<uint64_t>(problem.config.train.seed)},
        at_once_, comm_, stream_);
  }

  bool samples_resident() const override { return samples_->resident(); }
  void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) override;
  DeviceWeights& weights() override { return weights_; }
  std::unique_ptr<Predictor> make_predictor(const Problem& problem) override;

 private:
  using Part = DeviceWeights::Part;
  /// What the programs of users or of items read and write.
  struct SideOf {
    int64_t width = 0;  // of a part
    int64_t most = 0;   // ids of a step
    DeviceArray<const float*> tables;
    DeviceArray<float*> table_gradients;
    DeviceArray<int64_t> cols;
    DeviceArray<double> penalties;             // [tables], or empty
    DeviceArray<float> parts, part_gradients;  // [held ids, width]
    BlockMemory memory;
  };
  static size_t index(Side side) { return static_cast<size_t>(side); }

  void reserve(Side side, const Parameters& parameters);
  void reserve_rows();
  std::vector<int64_t> first_items(const Parameters& parameters) const;
  int64_t most_ids_of_unit(Side side, const Parameters& parameters) const;

  void prepare(int64_t epoch, int64_t step);
  void enqueue();
  void compute_parts();
  void compute_leaves();
  void sum_leaves(bool of_ids, cudaStream_t stream);
  void sum_parts(const float* item_rows);
  void reduce();
  DeviceArray<float> all_parts(Side side);

  kernel::IdSide ids_of(Side side);
  fused::IdArguments id_arguments(Side side);
  fused::RowArguments row_arguments();

  template <class Body>
  void each(int64_t n, const Body& body) {
    for_each(n, stream_, body);
  }
  /// Enqueues ForwardIds or BackwardIds over the blocks of both sides.
  template <class Body>
  void each_id_block() {
    const DeviceProgram &users = model_.ids(Side::kUser), &items = model_.ids(Side::kItem);
    for_teams(units() * (sides_[0].memory.of_unit() + sides_[1].memory.of_unit()), kTeamThreads,
              std::max(users.shared_bytes(), items.shared_bytes()), stream_,
              Body{weights_.now(), units(), {ids_of(Side::kUser), ids_of(Side::kItem)}});
  }
  /// Enqueues what `enqueue()` does as one, from the second time on: the first loads its kernels, which no graph may.
  template <class Enqueue>
  void graph(size_t k, Enqueue&& enqueue) {
    if (!loaded_[k]) {
      loaded_[k] = true;
      return enqueue();
    }
    if (!graphs_[k].made()) graphs_[k].make(stream_, enqueue);
    graphs_[k].launch();
  }
  /// Part of a step between collectives; part of its one graph where there are none.
  template <class Enqueue>
  void piece(size_t k, Enqueue&& enqueue) {
    if (alone()) return enqueue();
    graph(k, enqueue);
  }
  void wait() { comm_.synchronize(stream_.handle()); }
  bool alone() const { return comm_.world().size == 1; }
  int64_t units() const { return shards_.size(); }

  const Engine& engine_;
  const Objective objective_;
  const Schedule& schedule_;
  Communicator& comm_;
  const Range shards_, held_items_;
  const StepRows rows_;
  DeviceStream stream_, aside_;
  FusedModel model_;
  DeviceWeights weights_;
  DeviceNorms norms_;
  std::optional<ItemRequests> requests_;  // items are those of others too
  DeviceArray<float> columns_[2];         // of this rank's users, of all items
  std::vector<fused::Pass> passes_;

  SideOf sides_[2];
  BlockMemory row_memory_;
  int64_t at_once_ = 1;
  int64_t epoch_ = -1;
  Range prepared_{0, 0};  // steps of the epoch
  DeviceSamples::Rows taken_{};
  std::optional<StepWindow> window_;
  DeviceGraph graphs_[3];
  bool loaded_[3] = {};

  // A step. Shapes: N rows at most.
  DeviceArray<float> user_rows_, item_rows_;          // [N, width] gradients of parts
  DeviceArray<float> slopes_;                         // [N]
  DeviceArray<double> losses_;                        // [N]
  DeviceArray<double> group_outputs_, group_slopes_, group_scratch_;  // [N]; groups alone
  DeviceArray<float> leaves_;                         // [units, dense size]
  DeviceArray<double> leaf_losses_;                   // [units]
  std::optional<DeviceSamples> samples_;              // made last: it takes what room is left
};

int64_t FusedStep::State::most_ids_of_unit(Side side, const Parameters& parameters) const {
  int64_t most = 0;
  if (side == Side::kUser) {
    most = rows_.most_of_unit();
  } else {
    const std::vector<int64_t> first = first_items(parameters);
    for (size_t k = 1; k < first.size(); ++k) most = std::max(most, first[k] - first[k - 1]);
  }
  return most;
}

/// Items whose gradients a unit's leaf takes.
std::vector<int64_t> FusedStep::State::first_items(const Parameters& parameters) const {
  std::vector<int64_t> first;
  for (int64_t unit = 0; unit <= units(); ++unit)
    first.push_back(weights_.exact() ? parameters.item_begin()[shards_.begin + unit]
                                     : held_items_.size() * unit / units());
  return first;
}

void FusedStep::State::reserve(Side side, const Parameters& parameters) {
  const bool of_users = side == Side::kUser;
  std::vector<const float*> tables;
  std::vector<float*> gradients;
  std::vector<int64_t> cols;
  std::vector<double> penalties;
  for (const Part& part : weights_.parts()) {
    if (part.kind != (of_users ? ArrayKind::kUserTable : ArrayKind::kItemTable)) continue;
    tables.push_back(weights_.values(part));
    gradients.push_back(weights_.gradients(part));
    cols.push_back(part.cols);
    penalties.push_back(parameters.arrays[part.array].spec.row_penalty);
  }
  SideOf& of = sides_[index(side)];
  const int64_t held = of_users ? std::ssize(parameters.user_touched) : held_items_.size();
  of.width = engine_.part_width(side);
  of.most = of_users ? std::min(held, rows_.most_of_step()) : held;
  of.tables = {tables, stream_};
  of.table_gradients = {gradients, stream_};
  of.cols = {cols, stream_};
  if (parameters.penalizes(of_users ? ArrayKind::kUserTable : ArrayKind::kItemTable))
    of.penalties = {penalties, stream_};
  of.parts = DeviceArray<float>(held * of.width);
  of.part_gradients = DeviceArray<float>(held * of.width);
  const fused::Program& host = of_users ? model_.compiled().users() : model_.compiled().items();
  const fused::Pass back{.backward_end = host.op_count};
  of.memory = BlockMemory(host, std::span(&back, 1), model_.ids(side).fits(), units(),
                          most_ids_of_unit(side, parameters), stream_);
  wait();
}

void FusedStep::State::reserve_rows() {
  const fused::Program& host = model_.compiled().rows();
  passes_ = model_.compiled().passes();
  if (objective_.ranks())
    passes_ = {{.forward_end = host.op_count}, {.backward_end = host.op_count}};
  row_memory_ = BlockMemory(host, passes_, passes_.size() == 1 && model_.rows().fits(), units(),
                            rows_.most_of_unit(), stream_);
  const int64_t most = rows_.most_of_step();
  user_rows_ = DeviceArray<float>(most * sides_[0].width);
  if (!requests_) item_rows_ = DeviceArray<float>(most * sides_[1].width);
  slopes_ = DeviceArray<float>(most);
  losses_ = DeviceArray<double>(most);
  if (objective_.ranks()) {
    group_outputs_ = DeviceArray<double>(most);
    group_slopes_ = DeviceArray<double>(most);
    group_scratch_ = DeviceArray<double>(most);
  }
  leaves_ = DeviceArray<float>(units() * weights_.dense_size());
  leaf_losses_ = DeviceArray<double>(units());
}

void FusedStep::State::prepare(int64_t epoch, int64_t step) {
  if (epoch == epoch_ && prepared_.begin <= step && step < prepared_.end) return;
  prepared_ = {step, std::min(step + at_once_, schedule_.steps())};
  if (epoch != epoch_) {
    wait();  // the order of the last epoch is still in use
    samples_->begin_epoch(epoch);
  } else {
    samples_->fetch_ahead(prepared_);
  }
  epoch_ = epoch;
  const DeviceSamples::Rows before = taken_;
  taken_ = samples_->take(prepared_);
  window_->prepare(prepared_, taken_, sides_[1].width);
  // What a graph has of a window: where its arrays are, and how many steps its messages are for.
  if (requests_ || before.user != taken_.user)
    for (DeviceGraph& graph : graphs_) graph.forget();
}

void FusedStep::State::run(int64_t epoch, int64_t step, double learning_rate, int64_t update) {
  KT_CHECK(schedule_.batch_size(step) > 0);
  prepare(epoch, step);
  weights_.plan(step - prepared_.begin, 1 / static_cast<double>(schedule_.batch_size(step)),
                learning_rate, update);
  if (alone())
    graph(0, [this] { enqueue(); });
  else
    enqueue();
}

void FusedStep::State::enqueue() {
  piece(0, [&] { compute_parts(); });
  if (requests_) requests_->fetch(weights_.now(), sides_[1].parts.data(), sides_[1].width);
  compute_leaves();
  const float* item_rows = requests_ ? requests_->give_back(sides_[1].width) : item_rows_.data();
  piece(2, [&] {
    sum_parts(item_rows);
    each_id_block<kernel::BackwardIds>();
    if (alone()) stream_.wait_for(aside_);
    sum_leaves(true, stream_);
  });
  reduce();
  weights_.finish(leaf_losses_.data(), [&] { norms_.update_running(); });
}

fused::IdArguments FusedStep::State::id_arguments(Side side) {
  SideOf& of = sides_[index(side)];
  // Columns of items are those of all: a row is one of the held.
  const int64_t first =
      side == Side::kItem ? held_items_.begin * engine_.column_count(Side::kItem) : 0;
  return {.n = 0,
          .row = nullptr,
          .tables = of.tables.data(),
          .table_cols = of.cols.data(),
          .columns = columns_[index(side)].data() + first,
          .parts = of.parts.data(),
          .part_gradients = of.part_gradients.data(),
          .table_gradients = of.table_gradients.data(),
          .dense_gradient = nullptr};
}

kernel::IdSide FusedStep::State::ids_of(Side side) {
  SideOf& of = sides_[index(side)];
  const bool of_users = side == Side::kUser;
  return {.fused = model_.arguments(model_.ids(side), of.memory.memory()),
          .ids = id_arguments(side),
          .lists = of_users ? window_->users() : window_->items(),
          .blocks = of.memory.blocks(),
          .penalties = of.penalties.data(),
          .rows_of_count = of_users ? objective_.group() : 1};
}

void FusedStep::State::compute_parts() {
  aside_.wait_for(stream_);
  weights_.forget_gradients(aside_);
  leaves_.zero(aside_);
  model_.set_dense(weights_.dense(), stream_, weights_.begin_step());
  each_id_block<kernel::ForwardIds>();
  stream_.wait_for(aside_);
}

fused::RowArguments FusedStep::State::row_arguments() {
  return {.n = 0,
          .user_parts = sides_[0].parts.data(),
          .item_parts = requests_ ? requests_->incoming() : sides_[1].parts.data(),
          .user = taken_.user,
          .item = nullptr,
          .item_id = taken_.item,
          .columns = {columns_[0].data(), columns_[1].data(), taken_.columns},
          .target = taken_.target,
          .loss = fused::row_loss(objective_.loss),
          .delta = objective_.delta,
          .dropout_key = engine_.dropout_width() > 0 ? taken_.dropout_key : nullptr,
          .scale = 0,
          .norms = norms_.batch(),
          .user_part_gradients = user_rows_.data(),
          .item_part_gradients = requests_ ? requests_->outgoing() : item_rows_.data(),
          .dense_gradient = nullptr,
          .item_gradient_row = nullptr,
          .predictions = nullptr,
          .losses = losses_.data(),
          .slopes = slopes_.data()};
}

// What a later pass needs of an earlier one is in the blocks' memory, so that several compute there.
void FusedStep::State::compute_leaves() {
  const bool several = passes_.size() > 1;
  const auto pass = [&](size_t k) {
    kernel::Fused fused = model_.arguments(model_.rows(), row_memory_.memory());
    if (several) fused.workspaces = row_memory_.memory();
    for_teams(units() * row_memory_.of_unit(), kTeamThreads,
              several ? DeviceProgram::kScratchBytes : model_.rows().shared_bytes(), stream_,
              kernel::TrainRows{.now = weights_.now(),
                                .fused = fused,
                                .blocks = row_memory_.blocks(),
                                .pass = passes_[k],
                                .rows = row_arguments(),
                                .unit_begin = window_->unit_begin(),
                                .request = requests_ ? window_->request_of_row() : nullptr,
                                .units = units(),
                                .row_columns = engine_.column_count(Side::kRow)});
  };
  const auto end = [&] {
    aside_.wait_for(stream_);
    sum_leaves(false, aside_);
    if (!alone()) stream_.wait_for(aside_);  // a graph ends where it began
  };
  if (engine_.batch_norms().empty()) {
    piece(1, [&] {
      pass(0);
      if (objective_.ranks()) {
        const fused::Program& program = model_.rows().program();
        each(rows_.most_of_step() / objective_.group(),
             kernel::FindGroupLosses{.now = weights_.now(),
                                     .objective = objective_,
                                     .unit_begin = window_->unit_begin(),
                                     .units = units(),
                                     .blocks = row_memory_.blocks(),
                                     .prediction = program.prediction,
                                     .prediction_gradient = program.prediction_gradient,
                                     .target = taken_.target,
                                     .outputs = group_outputs_.data(),
                                     .slopes = group_slopes_.data(),
                                     .scratch = group_scratch_.data(),
                                     .losses = losses_.data()});
        pass(1);
      }
      end();
    });
    return;
  }
  pass(0);
  for (size_t k = 1; k < passes_.size(); ++k) {
    norms_.share_statistics(static_cast<int64_t>(k) - 1, window_->unit_begin(),
                            row_memory_.blocks(), leaves_.data());
    pass(k);
  }
  end();
}

void FusedStep::State::sum_leaves(bool of_ids, cudaStream_t stream) {
  kernel::SumWeights sums{.now = weights_.now(),
                          .units = units(),
                          .of = {},
                          .slopes = slopes_.data(),
                          .losses = losses_.data(),
                          .group = objective_.group(),
                          .leaves = leaves_.data(),
                          .dense_size = weights_.dense_size(),
                          .leaf_losses = leaf_losses_.data()};
  if (of_ids) {
    sums.of[0] = sides_[0].memory.sums(window_->users().unit_begin);
    sums.of[1] = sides_[1].memory.sums(window_->items().unit_begin);
  } else {
    sums.of[0] = row_memory_.sums(window_->unit_begin());
  }
  for_teams(units() * (sums.of[0].tile_count + sums.of[1].tile_count), fused::kTileThreads,
            fused::team::kLanes * static_cast<int64_t>(sizeof(double)), stream, sums);
}

void FusedStep::State::sum_parts(const float* item_rows) {
  const auto sums = [&](Side side, const kernel::IdLists& lists, const float* from) {
    SideOf& of = sides_[index(side)];
    return kernel::SumIds{weights_.now(), lists, units(), of.width, from, of.part_gradients.data()};
  };
  const int64_t of_users = sides_[0].most * sides_[0].width;
  each(of_users + sides_[1].most * sides_[1].width,
       kernel::SumBothIds{sums(Side::kUser, window_->users(), user_rows_.data()),
                          sums(Side::kItem, window_->items(), item_rows), of_users});
}

void FusedStep::State::reduce() {
  if (weights_.exact()) return weights_.reduce_leaves(leaves_.data());
  const auto sum_ranks = [&](auto* data, int64_t count, DataType type) {
    if (!alone()) comm_.all_reduce(data, data, count, type, Reduction::kSum, stream_.handle());
  };
  each(weights_.dense_size(), kernel::SumColumns{leaves_.data(), units(), weights_.dense_size(),
                                                 weights_.dense_gradients()});
  each(1, kernel::SumLosses{units(), leaf_losses_.data()});
  sum_ranks(weights_.dense_gradients(), weights_.dense_size(), DataType::kFloat32);
  sum_ranks(leaf_losses_.data(), 1, DataType::kFloat64);
  for (const Part& part : weights_.parts())
    if (part.kind == ArrayKind::kItemTable)
      sum_ranks(weights_.gradients(part), part.size, DataType::kFloat32);
}

DeviceArray<float> FusedStep::State::all_parts(Side side) {
  fused::IdArguments ids = id_arguments(side);
  const SideOf& of = sides_[index(side)];
  ids.n = of.width > 0 ? of.parts.size() / of.width : 0;
  return parts_of_all(model_, side, ids, stream_);
}

std::unique_ptr<Predictor> FusedStep::State::make_predictor(const Problem& problem) {
  model_.set_dense(weights_.dense(), stream_);
  model_.set_running_norms(weights_.dense(), stream_);
  FusedPredictor::Weights weights{.user_parts = all_parts(Side::kUser),
                                  .item_parts = all_parts(Side::kItem),
                                  .columns = {columns_[0].data(), columns_[1].data()}};
  if (requests_) weights.item_parts = requests_->gather(weights.item_parts.data(), sides_[1].width);
  return std::make_unique<FusedPredictor>(problem, model_, std::move(weights), stream_);
}

FusedStep::FusedStep(const Problem& problem, const Parameters& parameters, Form form,
                     const Schedule& schedule, std::span<const ShardSamples> samples,
                     const NegativeSampler* negatives, Communicator& devices, Communicator& control)
    : StepsOnDevice(std::make_unique<State>(problem, parameters, form, schedule, samples, negatives,
                                            devices, control)) {}

}  // namespace kt
