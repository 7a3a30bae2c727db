#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "launch/base/errors.h"
#include "launch/collectives/agree.h"
#include "launch/process/device.h"
#include "models/all_items/kernels.h"
#include "models/systems/autoencoder.h"
#include "trainer/devices/autoencoder_kernels.h"
#include "trainer/devices/autoencoder_on_device.h"
#include "trainer/devices/device_work.h"
#include "trainer/devices/kernels.h"
#include "trainer/devices/tree_sums.h"
#include "trainer/steps/encoder_batches.h"
#include "trainer/steps/means_step.h"

namespace kt {

class AutoencoderOnDevice::State final : public Work {
 public:
  State(const Problem& problem, Parameters& parameters, const Schedule& schedule,
        std::span<const ShardSamples> samples, Communicator& devices, MpiCommunicator& control,
        ThreadPool& pool)
      : problem_(problem),
        fit_(*problem.system.encoder),
        parameters_(parameters),
        schedule_(schedule),
        samples_(samples),
        comm_(devices),
        control_(control),
        pool_(pool),
        held_items_(parameters.held_items()),
        blocks_(parameters.shards().size()),
        dense_begin_(parameters.find(kEncoderBias).dense_offset),
        weights_(parameters, problem.config.train.clip_norm, devices, stream_) {
    KT_CHECK(weights_.exact());
    for (int64_t step = 0; step < schedule.steps(); ++step)
      most_users_ = std::max(most_users_, schedule.batch_size(step));
    place_outputs();
    reserve();
  }

  bool samples_resident() const override { return true; }
  void run(int64_t epoch, int64_t step, double learning_rate, int64_t update) override;
  DeviceWeights& weights() override { return weights_; }

 private:
  /// A step of the epoch, as the host knows it.
  struct Step {
    int64_t users = 0, cells = 0, outputs = 0;
    int64_t first_user = 0, first_begin = 0;  // in the epoch's arrays
  };
  using Part = DeviceWeights::Part;

  void place_outputs();
  void reserve();
  void prepare(bool is_first);
  void begin_epoch(int64_t epoch);
  void gather_cells(const Step& step);
  void encode(const Step& step);
  void forward(const Step& step);
  void decode(const Step& step, double scale);
  void find_slopes(const Step& step, double scale);
  void backward(const Step& step);

  const Part& part(const char* array) const {
    return *std::ranges::find_if(weights_.parts(), [&](const Part& part) {
      return parameters_.arrays[part.array].spec.name == array;
    });
  }
  size_t layers() const { return fit_.hidden.size(); }
  int64_t width(size_t layer) const { return fit_.hidden[layer]; }
  bool drops(size_t layer) const {
    return dropout_threshold(fit_.dropout) > 0 && (layer == 0 || layer + 1 == layers());
  }
  kernel::HiddenDropout dropout(size_t layer, const Step& step) const {
    const int64_t first = problem_.dataset.items() + (layer == 0 ? 0 : all_items::padded(width(0)));
    return {drops(layer) ? keys_.data() + step.first_user : nullptr, first,
            dropout_threshold(fit_.dropout), dropout_kept(fit_.dropout)};
  }
  template <class Body>
  void each(int64_t n, const Body& body) {
    for_each(n, stream_, body);
  }
  template <class End>
  void multiply(const kernel::Product& product, const End& end) {
    for_teams(kernel::tiles_of(product.rows, product.columns), kTeamThreads,
              sizeof(kernel::TileMemory), stream_, kernel::RunProduct<End>{product, end});
  }
  void wait() { comm_.synchronize(stream_.handle()); }

  const Problem& problem_;
  const EncoderFit& fit_;
  Parameters& parameters_;
  const Schedule& schedule_;
  std::span<const ShardSamples> samples_;
  Communicator& comm_;
  MpiCommunicator& control_;
  ThreadPool& pool_;
  const Range held_items_;
  const int64_t blocks_;       // own ones
  const int64_t dense_begin_;  // of the hidden layers' weights
  DeviceStream stream_;
  DeviceWeights weights_;
  int64_t most_users_ = 0;

  // Own items with an output. Shapes: O outputs, P panels of them, those of one block each.
  DeviceArray<int32_t> output_row_;     // [O] held row
  DeviceArray<int32_t> output_of_row_;  // [held rows]
  DeviceArray<int32_t> panel_begin_;    // [P + 1] outputs
  DeviceArray<int32_t> block_begin_;    // [blocks + 1] outputs
  DeviceArray<int32_t> block_panels_;   // [blocks + 1] panels
  DeviceArray<int64_t> block_items_;    // [blocks + 1] items
  int64_t outputs_count() const { return output_row_.size(); }
  int64_t panels() const { return panel_begin_.size() - 1; }

  // Histories: of own items, of all users. Made by the first step.
  std::optional<EncoderBatches> batches_;
  DeviceArray<int64_t> history_begin_;
  DeviceArray<int32_t> history_item_;
  DeviceArray<float> history_target_;

  // The epoch: its steps one after the other.
  int64_t epoch_ = -1;
  std::vector<Step> steps_;
  DeviceArray<int32_t> users_;       // [users]
  DeviceArray<uint32_t> keys_;       // [users]
  DeviceArray<int64_t> cell_begin_;  // [users + steps] of a step: its users', and the end

  // The step. Shapes: n cells, u users.
  DeviceArray<int32_t> cell_user_, cell_item_, cell_number_;  // [n]
  DeviceArray<float> cell_target_, cell_input_;               // [n]
  kernel::Cells cells() {
    return {cell_user_.data(), cell_item_.data(), cell_target_.data(), cell_input_.data()};
  }
  PairSort<int32_t> by_item_;                      // of their numbers
  DeviceArray<int64_t> block_place_, item_place_;  // PlaceBlocks, PlaceItems
  DeviceArray<float> leaves_;                      // [blocks, u, width]
  std::optional<TreeSums> tree_;
  std::vector<DeviceArray<float>> hidden_;         // of each layer: [u, width]
  DeviceArray<float> slopes_[2];                   // [u, width]
  DeviceArray<float> outputs_;                     // [O, u]
  DeviceArray<float> cell_slopes_;                 // [n] in the order of items
  DeviceArray<double> cell_losses_, zero_losses_;  // likewise; [P, u]
  DeviceArray<double> panel_losses_, losses_;      // [P], [blocks]
  DeviceArray<float> dense_gradient_;              // of all dense arrays
};

void AutoencoderOnDevice::State::place_outputs() {
  std::vector<int32_t> rows, output_of_row(held_items_.size(), -1), panels{0}, blocks{0},
      block_panels{0};
  for (const std::vector<int32_t>& of_block : encoder_outputs(problem_, parameters_)) {
    for (size_t first = 0; first < of_block.size(); first += all_items::kPanelRows)
      panels.push_back(blocks.back() + static_cast<int32_t>(std::min<size_t>(
                                           first + all_items::kPanelRows, of_block.size())));
    for (const int32_t row : of_block) {
      output_of_row[row] = static_cast<int32_t>(rows.size());
      rows.push_back(row);
    }
    blocks.push_back(static_cast<int32_t>(rows.size()));
    block_panels.push_back(static_cast<int32_t>(panels.size()) - 1);
  }
  output_row_ = {rows, stream_};
  output_of_row_ = {output_of_row, stream_};
  panel_begin_ = {panels, stream_};
  block_begin_ = {blocks, stream_};
  block_panels_ = {block_panels, stream_};
  block_items_ = {std::span(parameters_.item_begin())
                      .subspan(parameters_.shards().begin, static_cast<size_t>(blocks_ + 1)),
                  stream_};
  wait();
}

void AutoencoderOnDevice::State::reserve() {
  const int64_t widest = std::max(width(0), fit_.hidden.back());
  leaves_ = DeviceArray<float>(blocks_ * most_users_ * widest);
  tree_.emplace(parameters_.shard_count(), most_users_ * widest, comm_, stream_);
  for (const int64_t width : fit_.hidden) hidden_.emplace_back(most_users_ * width);
  for (DeviceArray<float>& slopes : slopes_)
    slopes = DeviceArray<float>(most_users_ * *std::ranges::max_element(fit_.hidden));
  block_place_ = DeviceArray<int64_t>(most_users_ * (blocks_ + 1));
  item_place_ = DeviceArray<int64_t>(held_items_.size() + 1);
  outputs_ = DeviceArray<float>(outputs_count() * most_users_);
  zero_losses_ = DeviceArray<double>(panels() * most_users_);
  panel_losses_ = DeviceArray<double>(panels());
  losses_ = DeviceArray<double>(blocks_);
  dense_gradient_ = DeviceArray<float>(weights_.dense_size());
}

/// What the training rows decide, and the means that targets are less of.
void AutoencoderOnDevice::State::prepare(bool is_first) {
  if (is_first) {
    find_means(problem_.system, parameters_, samples_, control_, pool_);
    weights_.upload(parameters_);
  }
  batches_.emplace(problem_, parameters_, schedule_, samples_, control_);
  const SparseRows& cells = batches_->cells();
  std::vector<int64_t> lengths;
  for (int64_t user = 0; user < cells.rows(); ++user)
    lengths.push_back(cells.begin[user + 1] - cells.begin[user]);
  std::ranges::sort(lengths, std::greater());
  lengths.resize(std::min(std::ssize(lengths), most_users_));
  const int64_t most = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  KT_CHECK(most <= INT32_MAX, "{} cells in one step of one rank", most);
  agree(control_, [&] {
    history_begin_ = {cells.begin, stream_};
    history_item_ = {cells.item, stream_};
    history_target_ = {cells.value, stream_};
    users_ = DeviceArray<int32_t>(batches_->users());
    keys_ = DeviceArray<uint32_t>(batches_->users());
    cell_begin_ = DeviceArray<int64_t>(batches_->users() + schedule_.steps());
    for (DeviceArray<int32_t>* of_cells : {&cell_user_, &cell_item_, &cell_number_})
      *of_cells = DeviceArray<int32_t>(most);
    for (DeviceArray<float>* of_cells : {&cell_target_, &cell_input_, &cell_slopes_})
      *of_cells = DeviceArray<float>(most);
    cell_losses_ = DeviceArray<double>(most);
    by_item_ = PairSort<int32_t>(most, problem_.dataset.items());
    each(most, kernel::Count{cell_number_.data()});
  });
  wait();
}

void AutoencoderOnDevice::State::begin_epoch(int64_t epoch) {
  if (epoch == epoch_) return;
  wait();  // the arrays of the last epoch are still in use
  epoch_ = epoch;
  steps_.clear();
  std::vector<int32_t> users;
  std::vector<uint32_t> keys;
  std::vector<int64_t> begin;
  const SparseRows& cells = batches_->cells();
  for (int64_t step = 0; step < schedule_.steps(); ++step) {
    const EncoderBatches::Batch batch = batches_->take(epoch, step);
    Step& next = steps_.emplace_back();
    next.users = std::ssize(batch.users);
    next.outputs = batch.outputs;
    next.first_user = std::ssize(users);
    next.first_begin = std::ssize(begin);
    begin.push_back(0);
    for (const int32_t user : batch.users)
      begin.push_back(begin.back() + cells.begin[user + 1] - cells.begin[user]);
    next.cells = begin.back();
    users.insert(users.end(), batch.users.begin(), batch.users.end());
    keys.insert(keys.end(), batch.keys.begin(), batch.keys.end());
  }
  users_.upload(users, stream_);
  keys_.upload(keys, stream_);
  cell_begin_.upload(begin, stream_);
  wait();
}

void AutoencoderOnDevice::State::run(int64_t epoch, int64_t step, double learning_rate,
                                     int64_t update) {
  if (!batches_) prepare(update == 1);
  begin_epoch(epoch);
  const Step& now = steps_[step];
  const double scale = now.outputs > 0 ? 1 / static_cast<double>(now.outputs) : 0;
  weights_.plan(0, scale, learning_rate, update);
  each(1, weights_.begin_step());
  gather_cells(now);
  encode(now);
  forward(now);
  weights_.forget_gradients(stream_);
  decode(now, scale);
  backward(now);
  weights_.finish(losses_.data(), [] {}, {.scale = scale, .count = static_cast<double>(now.users)});
}

void AutoencoderOnDevice::State::gather_cells(const Step& step) {
  const int64_t* begin = cell_begin_.data() + step.first_begin;
  each(step.cells, kernel::GatherCells{.users = step.users,
                                       .user_row = users_.data() + step.first_user,
                                       .key = keys_.data() + step.first_user,
                                       .cell_begin = begin,
                                       .from_begin = history_begin_.data(),
                                       .from_item = history_item_.data(),
                                       .from_target = history_target_.data(),
                                       .signed_input = fit_.signed_input,
                                       .threshold = dropout_threshold(fit_.input_dropout),
                                       .kept = dropout_kept(fit_.input_dropout),
                                       .to = cells()});
  by_item_.sort(cell_item_.data(), cell_number_.data(), step.cells, stream_);
  each(step.users * (blocks_ + 1), kernel::PlaceBlocks{begin, block_items_.data(), blocks_,
                                                       cell_item_.data(), block_place_.data()});
  each(item_place_.size(),
       kernel::PlaceItems{by_item_.keys(), step.cells, held_items_.begin, item_place_.data()});
}

/// The first hidden layer: the sums of the users' encoder rows.
void AutoencoderOnDevice::State::encode(const Step& step) {
  const int64_t size = step.users * width(0);
  each(blocks_ * size, kernel::EncodeLeaves{.cells = cells(),
                                            .place = block_place_.data(),
                                            .blocks = blocks_,
                                            .users = step.users,
                                            .width = width(0),
                                            .first_item = held_items_.begin,
                                            .encoder = weights_.values(part(kEncoder)),
                                            .leaves = leaves_.data()});
  const float* sums = tree_->sum(leaves_.data(), size);
  each(size, kernel::FirstHidden{sums, weights_.dense() + dense_begin_, width(0), dropout(0, step),
                                 hidden_[0].data()});
}

void AutoencoderOnDevice::State::forward(const Step& step) {
  const float* weights = weights_.dense() + dense_begin_ + width(0);
  for (size_t k = 1; k < layers(); ++k) {
    const int64_t in = width(k - 1), out = width(k);
    multiply({.rows = step.users,
              .columns = out,
              .depth = in,
              .a = {hidden_[k - 1].data(), in},
              .b = {weights, out},
              .start = weights + in * out},
             kernel::FinishHidden{hidden_[k].data(), out, dropout(k, step)});
    weights += (in + 1) * out;
  }
}

/// Outputs, losses and the gradients of the decoder's rows and of the last hidden layer.
void AutoencoderOnDevice::State::decode(const Step& step, double scale) {
  const Part &decoder = part(kDecoder), &bias = part(kDecoderBias);
  const int64_t users = step.users, last = fit_.hidden.back();
  const float* hidden = hidden_.back().data();
  multiply({.rows = outputs_count(),
            .columns = users,
            .depth = last,
            .a = {weights_.values(decoder), last, 1, output_row_.data()},
            .b = {hidden, 1, last}},
           kernel::FinishOutput{outputs_.data(), weights_.values(bias), output_row_.data(), users});
  find_slopes(step, scale);
  multiply({.rows = outputs_count(),
            .columns = last,
            .depth = users,
            .a = {outputs_.data(), users},
            .b = {hidden, last}},
           kernel::StoreElement{weights_.gradients(decoder), last, output_row_.data()});
  each(outputs_count(), kernel::OutputBiasGradients{outputs_.data(), output_row_.data(), users,
                                                    weights_.gradients(bias)});
  for_teams(blocks_ * kernel::tiles_of(users, last), kTeamThreads, sizeof(kernel::TileMemory),
            stream_,
            kernel::HiddenLeaves{block_begin_.data(), output_row_.data(), outputs_.data(),
                                 weights_.values(decoder), users, last, leaves_.data()});
}

/// Turns outputs into slopes.
void AutoencoderOnDevice::State::find_slopes(const Step& step, double scale) {
  const Objective& objective = problem_.system.objective;
  each(step.cells, kernel::CellLosses{.objective = objective,
                                      .shown_alone = fit_.shown_alone,
                                      .scale = scale,
                                      .item = by_item_.keys(),
                                      .cell = by_item_.values(),
                                      .cells = cells(),
                                      .output_of_row = output_of_row_.data(),
                                      .first_item = held_items_.begin,
                                      .users = step.users,
                                      .outputs = outputs_.data(),
                                      .losses = cell_losses_.data(),
                                      .slopes = cell_slopes_.data()});
  if (fit_.shown_alone)
    outputs_.zero(stream_);
  else
    each(panels() * step.users,
         kernel::ZeroTargets{panel_begin_.data(), step.users, objective.loss == Loss::kBce,
                             static_cast<float>(scale), outputs_.data(), zero_losses_.data()});
  each(step.cells,
       kernel::AddCellSlopes{by_item_.keys(), by_item_.values(), cells(), output_of_row_.data(),
                             held_items_.begin, step.users, cell_slopes_.data(), outputs_.data()});
  each(panels(),
       kernel::PanelLosses{panel_begin_.data(), output_row_.data(), item_place_.data(),
                           cell_losses_.data(), fit_.shown_alone ? nullptr : zero_losses_.data(),
                           step.users, panel_losses_.data()});
  each(blocks_, kernel::BlockLosses{block_panels_.data(), panel_losses_.data(), losses_.data()});
}

/// The gradients of the hidden layers, the same on every rank, and of the own encoder rows.
void AutoencoderOnDevice::State::backward(const Step& step) {
  const int64_t users = step.users;
  const float* from = tree_->sum(leaves_.data(), users * fit_.hidden.back());
  dense_gradient_.zero(stream_);
  int64_t end = dense_begin_ + width(0);
  for (size_t k = 1; k < layers(); ++k) end += (width(k - 1) + 1) * width(k);
  float *slopes = slopes_[0].data(), *before = slopes_[1].data();
  const auto undo = [&](size_t k) {
    const float kept = drops(k) ? dropout_kept(fit_.dropout) : 1.f;
    each(users * width(k), kernel::UndoHidden{hidden_[k].data(), kept, from, slopes});
  };
  for (size_t k = layers() - 1; k > 0; --k) {
    undo(k);
    const int64_t in = width(k - 1), out = width(k), at = end - (in + 1) * out;
    float* gradient = dense_gradient_.data() + at;
    multiply({.rows = in,
              .columns = out,
              .depth = users,
              .a = {hidden_[k - 1].data(), 1, in},
              .b = {slopes, out}},
             kernel::StoreElement{gradient, out});
    each(out, kernel::SumColumns{slopes, users, out, gradient + in * out});
    multiply({.rows = users,
              .columns = in,
              .depth = out,
              .a = {slopes, out},
              .b = {weights_.dense() + at, 1, out}},
             kernel::StoreElement{before, in});
    from = before;
    end = at;
  }
  undo(0);
  each(width(0),
       kernel::SumColumns{slopes, users, width(0), dense_gradient_.data() + dense_begin_});
  weights_.take_dense_gradients(dense_gradient_.data());
  const Part& encoder = part(kEncoder);
  each(encoder.size, kernel::EncoderGradients{item_place_.data(), by_item_.values(), cells(),
                                              slopes, width(0), weights_.gradients(encoder)});
}

AutoencoderOnDevice::AutoencoderOnDevice(const Problem& problem, Parameters& parameters,
                                         const Schedule& schedule,
                                         std::span<const ShardSamples> samples,
                                         Communicator& devices, MpiCommunicator& control,
                                         ThreadPool& pool)
    : StepsOnDevice(std::make_unique<State>(problem, parameters, schedule, samples, devices,
                                            control, pool)) {}

}  // namespace kt
