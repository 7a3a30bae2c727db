#include <algorithm>
#include <optional>

#include "launch/base/errors.h"
#include "launch/process/device.h"
#include "trainer/devices/device_samples.h"
#include "trainer/devices/device_work.h"
#include "trainer/devices/fused_kernels.h"
#include "trainer/devices/fused_model.h"
#include "trainer/devices/fused_predictor.h"
#include "trainer/devices/fused_step.h"
#include "trainer/devices/item_requests.h"
#include "trainer/devices/kernels.h"

namespace kt {
namespace {

constexpr int64_t kTeamsOfIds = 4;  // of a unit, for the parts of its ids

}  // namespace

class FusedStep::State final : public Work {
 public:
  State(const Problem& problem, const Parameters& parameters, Form form, const Schedule& schedule,
        std::span<const ShardSamples> samples, Communicator& devices, Communicator& control)
      : engine_(*problem.engine),
        objective_(problem.system.objective),
        schedule_(schedule),
        seed_(static_cast<uint64_t>(problem.config.train.seed)),
        comm_(devices),
        shards_(parameters.shards()),
        held_items_(parameters.held_items()),
        model_(problem.system.graph, form, stream_),
        weights_(parameters, problem.config.train.clip_norm, devices, stream_),
        requests_(parameters, schedule, samples, seed_, devices, control, stream_),
        columns_{DeviceArray<float>(problem.columns.users, stream_),
                 DeviceArray<float>(problem.columns.items, stream_)} {
    for (const Side side : {Side::kUser, Side::kItem}) sides_[index(side)] = side_of(side);
    place_units(parameters);
    reserve(parameters);
    wait();
    samples_.emplace(schedule, shards_, samples, objective_, most_, seed_, comm_, stream_);
  }

  bool samples_resident() const override { return samples_->resident(); }
  void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) override;
  DeviceWeights& weights() override { return weights_; }
  std::unique_ptr<Predictor> make_predictor(const Problem& problem) override;

 private:
  using Part = DeviceWeights::Part;
  /// What the programs of users or of items read and write. Shapes: n samples or requests of a step.
  struct SideOf {
    int64_t width = 0;  // of a part
    DeviceArray<const float*> tables;
    DeviceArray<float*> table_gradients;
    DeviceArray<int64_t> cols;
    DeviceArray<float> parts, part_gradients;     // [held ids, width]
    DeviceArray<int32_t> list;                    // [n]
    DeviceArray<int64_t> list_begin, list_count;  // [units]
    kernel::IdLists lists() { return {list.data(), list_begin.data(), list_count.data()}; }
  };
  static size_t index(Side side) { return static_cast<size_t>(side); }

  SideOf side_of(Side side);
  void place_units(const Parameters& parameters);
  void reserve(const Parameters& parameters);
  void begin_epoch(int64_t epoch);
  void gather(int64_t epoch, int64_t step);
  void list_ids();
  void compute_parts(Side side);
  void train_leaves(int64_t step);
  void sum_part_gradients();
  void return_ids(Side side);
  void reduce();
  DeviceArray<float> all_parts(Side side);

  template <class Body>
  void each(int64_t n, const Body& body) {
    for_each(n, stream_, body);
  }
  template <class Body>
  void teams(int64_t n, const Body& body) {
    for_teams(n, model_.shared_bytes(), stream_, body);
  }
  void wait() { comm_.synchronize(stream_.handle()); }
  int64_t units() const { return shards_.size(); }
  /// Items are computed and summed by their owners; otherwise all by every rank, for its own rows.
  bool remote() const { return weights_.exact(); }
  int64_t asked() const { return remote() ? requests_.count() : n_; }
  const int32_t* asked_items() const {
    return remote() ? requests_.sorted_items() : by_item_.keys();
  }
  fused::IdArguments ids_of(Side side);

  const Engine& engine_;
  const Objective objective_;
  const Schedule& schedule_;
  const uint64_t seed_;
  Communicator& comm_;
  const Range shards_, held_items_;
  DeviceStream stream_;
  FusedModel model_;
  DeviceWeights weights_;
  ItemRequests requests_;
  DeviceArray<float> columns_[2];  // of this rank's users, of all items

  SideOf sides_[2];
  DeviceArray<int64_t> unit_begin_;  // [steps, units + 1]
  DeviceArray<int64_t> item_begin_;  // [units + 1] items whose gradients a unit's leaf takes
  int64_t epoch_ = -1;

  // The step. Shapes: n samples, at most N.
  int64_t most_ = 0, n_ = 0, step_number_ = 0;
  std::vector<int64_t> samples_of_step_;  // [steps] of this rank
  DeviceSamples::Step step_{};
  DeviceArray<int32_t> number_;               // [N] 0, 1, 2, ...: what a sort carries
  DeviceArray<uint8_t> first_;                // [N] a sample is its user's first
  DeviceArray<int32_t> place_;                // [N] of a sample in the order of items
  DeviceArray<uint32_t> dropout_key_;         // [N]
  DeviceArray<float> user_rows_, item_rows_;  // [N, width] gradients of parts
  DeviceArray<float> leaves_;                 // [units, dense size]
  DeviceArray<double> losses_;                // [units]
  const float* item_parts_ = nullptr;         // of the step's samples or of the held items
  const int32_t* part_of_row_ = nullptr;      // [n]
  PairSort by_user_, by_item_;
  std::optional<DeviceSamples> samples_;  // made last: it takes what room is left
};

FusedStep::State::SideOf FusedStep::State::side_of(Side side) {
  const ArrayKind kind = side == Side::kUser ? ArrayKind::kUserTable : ArrayKind::kItemTable;
  std::vector<const float*> tables;
  std::vector<float*> gradients;
  std::vector<int64_t> cols;
  for (const Part& part : weights_.parts()) {
    if (part.kind != kind) continue;
    tables.push_back(weights_.values(part));
    gradients.push_back(weights_.gradients(part));
    cols.push_back(part.cols);
  }
  SideOf result;
  result.width = engine_.part_width(side);
  result.tables = {tables, stream_};
  result.table_gradients = {gradients, stream_};
  result.cols = {cols, stream_};
  result.list_begin = DeviceArray<int64_t>(units());
  result.list_count = DeviceArray<int64_t>(units());
  wait();
  return result;
}

void FusedStep::State::place_units(const Parameters& parameters) {
  std::vector<int64_t> begin;
  for (int64_t t = 0; t < schedule_.steps(); ++t) {
    begin.push_back(0);
    for (int64_t j = shards_.begin; j < shards_.end; ++j)
      begin.push_back(begin.back() + schedule_.positions(j, t).size());
    samples_of_step_.push_back(begin.back());
    most_ = std::max(most_, begin.back());
  }
  KT_CHECK(most_ <= INT32_MAX, "{} samples in one step of one rank", most_);
  std::vector<int64_t> items;
  for (int64_t unit = 0; unit <= units(); ++unit)
    items.push_back(remote() ? parameters.item_begin()[shards_.begin + unit]
                             : held_items_.size() * unit / units());
  unit_begin_ = {begin, stream_};
  item_begin_ = {items, stream_};
  wait();
}

void FusedStep::State::reserve(const Parameters& parameters) {
  SideOf &users = sides_[0], &items = sides_[1];
  const auto held_users = std::ssize(parameters.user_touched);
  users.parts = DeviceArray<float>(held_users * users.width);
  users.part_gradients = DeviceArray<float>(held_users * users.width);
  users.list = DeviceArray<int32_t>(most_);
  items.parts = DeviceArray<float>(held_items_.size() * items.width);
  items.part_gradients = DeviceArray<float>(held_items_.size() * items.width);
  number_ = DeviceArray<int32_t>(most_);
  each(most_, kernel::Count{number_.data()});
  first_ = DeviceArray<uint8_t>(most_);
  place_ = DeviceArray<int32_t>(most_);
  dropout_key_ = DeviceArray<uint32_t>(most_);
  user_rows_ = DeviceArray<float>(most_ * users.width);
  leaves_ = DeviceArray<float>(units() * weights_.dense_size());
  losses_ = DeviceArray<double>(units());
  by_user_ = PairSort(most_, held_users);
  by_item_ = PairSort(most_, parameters.item_begin().back());
  if (!remote()) {
    items.list = DeviceArray<int32_t>(most_);
    item_rows_ = DeviceArray<float>(most_ * items.width);
  }
}

void FusedStep::State::begin_epoch(int64_t epoch) {
  if (epoch == epoch_) return;
  wait();  // the order of the last epoch is still in use
  samples_->begin_epoch(epoch);
  epoch_ = epoch;
  if (!remote()) return;
  requests_.begin_epoch(epoch, sides_[1].width);
  if (requests_.most() > sides_[1].list.size())
    sides_[1].list = DeviceArray<int32_t>(requests_.most());
}

void FusedStep::State::run(int64_t epoch, int64_t step, double learning_rate, int64_t update) {
  KT_CHECK(schedule_.batch_size(step) > 0);
  begin_epoch(epoch);
  gather(epoch, step);
  model_.set_dense(weights_.dense(), stream_);
  list_ids();
  compute_parts(Side::kUser);
  compute_parts(Side::kItem);
  if (remote())
    item_parts_ = requests_.fetch(sides_[1].parts.data(), held_items_.begin, sides_[1].width);
  weights_.forget_gradients();
  train_leaves(step);
  sum_part_gradients();
  return_ids(Side::kUser);
  return_ids(Side::kItem);
  reduce();
  weights_.finish(losses_.data(), learning_rate, update);
  samples_->fetch_ahead(step);
}

void FusedStep::State::gather(int64_t epoch, int64_t step) {
  step_number_ = step;
  n_ = samples_of_step_[step];
  step_ = samples_->take(step);
  if (engine_.dropout_width() > 0)
    each(n_, kernel::DropoutKeys{seed_, epoch, step_.row, dropout_key_.data()});
  by_user_.sort(step_.user, number_.data(), n_, stream_);
  by_item_.sort(step_.item, number_.data(), n_, stream_);
  each(n_, kernel::MarkFirst{by_user_.keys(), by_user_.values(), first_.data()});
  each(n_, kernel::Invert{by_item_.values(), place_.data()});
  if (remote()) requests_.route(step, by_item_.keys());
}

void FusedStep::State::list_ids() {
  const int64_t* unit_begin = unit_begin_.data() + step_number_ * (units() + 1);
  teams(units(), kernel::ListUsers{unit_begin, first_.data(), step_.user, sides_[0].lists()});
  teams(units(), kernel::ListItems{item_begin_.data(), asked_items(), asked(), held_items_.begin,
                                   sides_[1].lists()});
}

fused::IdArguments FusedStep::State::ids_of(Side side) {
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
          .dense_gradient = leaves_.data()};
}

void FusedStep::State::compute_parts(Side side) {
  const int64_t count = units() * kTeamsOfIds;
  teams(count, kernel::ForwardIds{model_.arguments(model_.program(side), count), ids_of(side),
                                  sides_[index(side)].lists(), kTeamsOfIds});
}

void FusedStep::State::train_leaves(int64_t step) {
  leaves_.zero(stream_);
  fused::RowArguments rows{
      .n = n_,
      .user_parts = sides_[0].parts.data(),
      .item_parts = remote() ? item_parts_ : sides_[1].parts.data(),
      .user = step_.user,
      .item = remote() ? place_.data() : step_.item,
      .item_id = step_.item,
      .columns = {columns_[0].data(), columns_[1].data(), nullptr},
      .target = step_.target,
      .loss = fused::row_loss(objective_.loss),
      .delta = objective_.delta,
      .dropout_key = engine_.dropout_width() > 0 ? dropout_key_.data() : nullptr,
      .scale = 1 / static_cast<double>(schedule_.batch_size(step)),
      .norms = nullptr,
      .user_part_gradients = user_rows_.data(),
      .item_part_gradients = remote() ? requests_.outgoing() : item_rows_.data(),
      .dense_gradient = leaves_.data(),
      .item_gradient_row = place_.data(),
      .predictions = nullptr};
  teams(units(), kernel::TrainLeaf{model_.arguments(model_.rows(), units()), model_.pass(), rows,
                                   unit_begin_.data() + step_number_ * (units() + 1),
                                   sides_[0].width, weights_.dense_size(), losses_.data()});
}

// Each in (shard, position) order, as sorts are stable.
void FusedStep::State::sum_part_gradients() {
  SideOf &users = sides_[0], &items = sides_[1];
  each(n_ * users.width, kernel::SumRows{.id = by_user_.keys(),
                                         .place = by_user_.values(),
                                         .n = n_,
                                         .first = 0,
                                         .cols = users.width,
                                         .from = user_rows_.data(),
                                         .to = users.part_gradients.data()});
  const float* from = remote() ? requests_.give_back(items.width) : item_rows_.data();
  each(asked() * items.width,
       kernel::SumRows{.id = asked_items(),
                       .place = remote() ? requests_.sorted_places() : number_.data(),
                       .n = asked(),
                       .first = held_items_.begin,
                       .cols = items.width,
                       .from = from,
                       .to = items.part_gradients.data()});
}

void FusedStep::State::return_ids(Side side) {
  teams(units(), kernel::BackwardIds{model_.arguments(model_.program(side), units()), ids_of(side),
                                     sides_[index(side)].lists(), weights_.dense_size()});
}

void FusedStep::State::reduce() {
  if (weights_.exact()) return weights_.reduce_leaves(leaves_.data());
  const auto sum_ranks = [&](auto* data, int64_t count, DataType type) {
    comm_.all_reduce(data, data, count, type, Reduction::kSum, stream_.handle());
  };
  each(weights_.dense_size(), kernel::SumLeaves{leaves_.data(), units(), weights_.dense_size(),
                                                weights_.dense_gradients()});
  each(1, kernel::SumLosses{units(), losses_.data()});
  sum_ranks(weights_.dense_gradients(), weights_.dense_size(), DataType::kFloat32);
  sum_ranks(losses_.data(), 1, DataType::kFloat64);
  for (const Part& part : weights_.parts())
    if (part.kind == ArrayKind::kItemTable)
      sum_ranks(weights_.gradients(part), part.size, DataType::kFloat32);
}

DeviceArray<float> FusedStep::State::all_parts(Side side) {
  const SideOf& of = sides_[index(side)];
  const int64_t n = of.width > 0 ? of.parts.size() / of.width : 0;
  DeviceArray<float> parts(of.parts.size());
  DeviceArray<int32_t> ids(n);
  each(n, kernel::Count{ids.data()});
  const int64_t none = 0;
  DeviceArray<int64_t> begin(std::span(&none, 1), stream_), count(std::span(&n, 1), stream_);
  fused::IdArguments arguments = ids_of(side);
  arguments.parts = parts.data();
  const int64_t count_of_teams = units() * kTeamsOfIds;
  teams(count_of_teams, kernel::ForwardIds{model_.arguments(model_.program(side), count_of_teams),
                                           arguments,
                                           {ids.data(), begin.data(), count.data()},
                                           count_of_teams});
  wait();
  return parts;
}

std::unique_ptr<Predictor> FusedStep::State::make_predictor(const Problem& problem) {
  model_.set_dense(weights_.dense(), stream_);
  FusedPredictor::Weights weights{.user_parts = all_parts(Side::kUser),
                                  .item_parts = all_parts(Side::kItem),
                                  .columns = {columns_[0].data(), columns_[1].data()},
                                  .first_user = 0};
  for (int64_t shard = 0; shard < shards_.begin; ++shard)
    weights.first_user += problem.users_per_shard[shard];
  if (remote()) weights.item_parts = requests_.gather(weights.item_parts.data(), sides_[1].width);
  return std::make_unique<FusedPredictor>(problem, model_, std::move(weights), stream_);
}

FusedStep::FusedStep(const Problem& problem, const Parameters& parameters, Form form,
                     const Schedule& schedule, std::span<const ShardSamples> samples,
                     Communicator& devices, Communicator& control)
    : StepsOnDevice(std::make_unique<State>(problem, parameters, form, schedule, samples, devices,
                                            control)) {}

}  // namespace kt
