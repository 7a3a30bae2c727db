#include "trainer/steps/train_step.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "launch/base/errors.h"
#include "launch/base/random.h"
#include "sharding/batch_statistics.h"
#include "sharding/gather_shards.h"
#include "sharding/tree_sum.h"
#include "trainer/steps/code_penalty.h"

namespace kt {

Exchange::Options exchange_options(const Engine& engine, const Parameters& parameters,
                                   const Schedule& schedule, const ThreadPool& pool,
                                   int64_t group) {
  return {.part_width = engine.part_width(Side::kItem),
          .most_rows = group * schedule.most_rows(parameters.shards()),
          .threads = pool.threads()};
}

TrainStep::TrainStep(Engine& engine, Parameters& parameters, Exchange& exchange, Communicator& comm,
                     ThreadPool& pool, const Schedule& schedule,
                     std::span<const ShardSamples> samples, const StepColumns& columns,
                     const Objective& objective, const Options& options)
    : engine_(engine),
      parameters_(parameters),
      exchange_(exchange),
      comm_(comm),
      pool_(pool),
      schedule_(schedule),
      samples_(samples),
      columns_(columns),
      objective_(objective),
      options_(options),
      units_(parameters.shards().size()),
      dense_size_(std::ssize(parameters.dense)),
      user_width_(engine.part_width(Side::kUser)),
      item_width_(engine.part_width(Side::kItem)),
      row_columns_count_(engine.column_count(Side::kRow)),
      group_(options.negatives ? options.negatives->group() : 1),
      scratch_(engine.passes() > 1 ? units_ : pool.threads()),
      leaves_((exchange.leaves() == Exchange::Leaves::kOfUnits ? units_ : pool.threads()) *
              dense_size_),
      losses_(units_),
      moments_(engine.batch_norms().size()) {
  KT_CHECK(group_ == 1 || row_columns_count_ == 0, "columns of rows that no row of the data is");
  int64_t users = 0;
  for (const ShardSamples& shard : samples) {
    first_user_.push_back(users);
    users += std::ssize(shard.users);
  }
  place_of_user_.resize(users);
  item_part_sums_.resize(parameters.item_touched.size() * item_width_);
  if (parameters.penalizes(ArrayKind::kUserTable) || penalizes_codes(engine, Side::kUser))
    user_counts_.resize(users);
  if (parameters.penalizes(ArrayKind::kItemTable) || penalizes_codes(engine, Side::kItem))
    item_counts_.resize(parameters.item_touched.size());
  for (size_t a = 0; a < engine.parameters().size();
       ++a) {  // those of the graph, which are the first
    ParameterArray& array = parameters.arrays[a];
    if (array.spec.kind == ArrayKind::kUserTable) user_tables_.push_back(&array);
    if (array.spec.kind == ArrayKind::kItemTable) item_tables_.push_back(&array);
  }
}

TrainStep::Result TrainStep::run(int64_t epoch, int64_t step, double learning_rate, int64_t update,
                                 const StepLimits& limits) {
  Result result{.samples = schedule_.batch_size(step)};
  if (result.samples == 0) return result;

  const Place place{epoch, step};
  if (next_.place != place) draw_next(place);
  std::swap(batch_, next_);
  compute_.time([&] {
    exchange_.begin(pool_);
    parameters_.forget_gradients();
    engine_.set_dense(parameters_.dense);
    if (options_.computed) options_.computed->forward(exchange_.owned());
    compute_item_parts();
  });
  draw_next(after(place));
  compute_.time([&] {
    exchange_.fetch_parts();
    const double scale = 1 / static_cast<double>(result.samples);
    compute_leaves(scale);
    return_item_gradients(scale);
    if (options_.computed) options_.computed->backward(exchange_.owned());
    const Exchange::Totals all = exchange_.reduce(leaves_, losses_, options_.request(), pool_);
    result.outcome = {.loss = all.loss, .gradient_norm = std::sqrt(all.squared_norm)};
    result.request = all.request;
  });
  if (!is_sound(result.outcome, options_.clip_norm, limits)) return result;

  update_.time([&] {
    const float scale = clip_factor(result.outcome.gradient_norm, options_.clip_norm);
    parameters_.update(learning_rate, update, scale, pool_);
    update_running_values();
    parameters_.copy_dense();
  });
  result.updated = true;
  return result;
}

StepSeconds TrainStep::seconds() const {
  // The exchange is timed as a part of computing.
  const double exchanging = exchange_.communication_s() + statistics_.seconds +
                            (options_.computed ? options_.computed->communication_s() : 0);
  return {.input = input_.seconds,
          .compute = compute_.seconds - exchanging,
          .communication = exchanging,
          .update = update_.seconds};
}

TrainStep::Place TrainStep::after(Place place) const {
  return place.step + 1 < schedule_.steps() ? Place{place.epoch, place.step + 1}
                                            : Place{place.epoch + 1, 0};
}

/// Draws the samples of a step and announces them.
void TrainStep::draw_next(Place place) {
  input_.time([&] {
    gather(place);
    exchange_.announce(next_.item, pool_);
  });
}

void TrainStep::gather(Place place) {
  const auto [epoch, step] = place;
  const Range shards = parameters_.shards();
  next_.place = place;
  next_.unit_begin.assign(units_ + 1, 0);
  for (int64_t unit = 0; unit < units_; ++unit)
    next_.unit_begin[unit + 1] =
        next_.unit_begin[unit] + group_ * schedule_.positions(shards.begin + unit, step).size();
  const int64_t n = next_.unit_begin[units_];
  next_.user_row.resize(n);
  next_.item.resize(n);
  next_.target.resize(n);
  next_.row_columns.resize(n * row_columns_count_);
  next_.dropout_key.resize(n);
  const auto epoch_key = static_cast<uint64_t>(epoch);
  pool_.parallel_for(units_, [&](int64_t unit, int) {
    const Samples& train = samples_[unit].train;
    const EpochOrder order =
        epoch_order(std::ssize(train), options_.seed, epoch, shards.begin + unit);
    const Range positions = schedule_.positions(shards.begin + unit, step);
    // Groups first, so that the reads that follow are under way together.
    constexpr int64_t kGroup = EpochOrder::kGroup, kTogether = 32;
    int64_t to = next_.unit_begin[unit];
    for (int64_t begin = positions.begin; begin < positions.end;) {
      const int64_t first = begin / kGroup;
      const int64_t end = std::min((first + kTogether) * kGroup, positions.end);
      int64_t group[kTogether];
      for (int64_t k = first; k * kGroup < end; ++k) {
        group[k - first] = order.group(k);
        __builtin_prefetch(train.data() + group[k - first]);
      }
      int64_t places[kTogether * kGroup], count = 0;
      for (; begin < end; ++begin) {
        places[count] = group[begin / kGroup - first] + begin % kGroup;
        if (places[count] >= std::ssize(train)) [[unlikely]]
          places[count] = order(begin);
        ++count;
      }
      if (options_.negatives) {
        for (int64_t k = 0; k < count; ++k, to += group_) put_group(unit, train[places[k]], to);
        continue;
      }
      for (int64_t k = 0; k < count; ++k) {
        const Sample& sample = train[places[k]];
        next_.user_row[to + k] = static_cast<int32_t>(first_user_[unit] + sample.user);
        next_.item[to + k] = sample.item;
        next_.target[to + k] = sample.label;
        next_.dropout_key[to + k] = dropout_key(options_.seed, epoch_key, sample.row);
      }
      for (int64_t k = 0; !columns_.targets.empty() && k < count; ++k)
        next_.target[to + k] = columns_.targets[unit][places[k]];
      for (int64_t k = 0; row_columns_count_ > 0 && k < count; ++k)
        std::copy_n(columns_.rows[unit] + places[k] * row_columns_count_, row_columns_count_,
                    next_.row_columns.data() + (to + k) * row_columns_count_);
      to += count;
    }
    if (!options_.negatives && columns_.targets.empty())
      objective_.make_targets(std::span(next_.target)
                                  .subspan(next_.unit_begin[unit],
                                           next_.unit_begin[unit + 1] - next_.unit_begin[unit]));
  });
}

/// A sample and its negatives, as rows of its user from `to` on.
void TrainStep::put_group(int64_t unit, const Sample& sample, int64_t to) {
  options_.negatives->draw(unit, sample, next_.place.epoch, &next_.item[to], &next_.target[to]);
  for (int64_t k = 0; k < group_; ++k) {
    next_.user_row[to + k] = static_cast<int32_t>(first_user_[unit] + sample.user);
    next_.dropout_key[to + k] = dropout_key_of_group(
        options_.seed, static_cast<uint64_t>(next_.place.epoch), sample.row, k);
  }
}

IdBatch TrainStep::item_batch(Range owned) const {
  const std::span<const int32_t> rows = exchange_.owned();
  IdBatch batch{.n = owned.size(), .row = rows.data() + owned.begin};
  for (const ParameterArray* table : item_tables_) batch.tables.push_back(table->value.data());
  if (columns_.items)
    batch.columns =
        columns_.items + parameters_.held_items().begin * engine_.column_count(Side::kItem);
  return batch;
}

std::span<float> TrainStep::leaf(int64_t unit, int thread) {
  const int64_t k = adds_to_leaves() ? thread : unit;
  return std::span(leaves_).subspan(k * dense_size_, dense_size_);
}

void TrainStep::compute_item_parts() {
  pool_.parallel_for(units_, [&](int64_t unit, int) {
    const Range owned = exchange_.owned_of_unit(unit);
    if (owned.size() == 0) return;
    engine_.forward_ids(Side::kItem, item_batch(owned), exchange_.own_parts());
  });
}

void TrainStep::compute_leaves(double scale) {
  if (adds_to_leaves()) std::ranges::fill(leaves_, 0.f);
  for (int64_t pass = 0; pass < engine_.passes(); ++pass) {
    pool_.parallel_for(units_, [&](int64_t unit, int thread) {
      if (pass == 0) losses_[unit] = 0;
      losses_[unit] += compute_leaf(unit, pass, scale, thread);
    });
    if (pass + 1 < engine_.passes()) share_statistics(pass);
  }
}

void TrainStep::share_statistics(int64_t pass) {
  const int64_t columns = 1 + 2 * engine_.norm_after(pass).width;
  std::vector<double> own;
  for (const Scratch& leaf : scratch_) {
    const std::vector<double>& statistics = leaf.memory.statistics;
    own.insert(own.end(), statistics.begin(), statistics.end());
  }
  std::vector<double> all;
  statistics_.time(
      [&] { all = gather_shards<double>(comm_, own, parameters_.shard_count(), columns); });
  const bool forward = pass < std::ssize(moments_);
  all = forward ? merge_moments(std::move(all), columns / 2) : tree_sums(std::move(all), columns);
  if (forward) moments_[pass] = all;
  engine_.set_statistics(pass, all);
}

void TrainStep::update_running_values() {
  for (size_t k = 0; k < moments_.size(); ++k) {
    const BatchNorm& norm = engine_.batch_norms()[k];
    const double rows = moments_[k][0];
    const auto update = [&](size_t a, auto&& of_batch) {
      ParameterArray& array = parameters_.arrays[a];
      for (int64_t c = array.held.begin * norm.width; c < array.held.end * norm.width; ++c) {
        float& value = array.value[c - array.held.begin * norm.width];
        value = static_cast<float>(norm.momentum * value + (1 - norm.momentum) * of_batch(c));
      }
    };
    update(norm.mean, [&](int64_t c) { return moments_[k][1 + c]; });
    update(norm.variance, [&](int64_t c) { return moments_[k][1 + norm.width + c] / rows; });
  }
}

/// The distinct users of rows [begin, end), in the order of their first row; they are a leaf's alone.
void TrainStep::find_users(int64_t begin, int64_t end, Scratch& to) {
  to.users.resize(end - begin);
  to.user_of_row.resize(end - begin);
  int32_t count = 0;
  // Written whether new or not: a branch would be mispredicted half of the time.
  for (int64_t k = begin; k < end; ++k) {
    const int32_t user = batch_.user_row[k];
    const bool known = std::exchange(parameters_.user_touched[user], uint8_t{1}) != 0;
    const int32_t place = known ? place_of_user_[user] : count;
    to.users[count] = user;
    to.user_of_row[k - begin] = place_of_user_[user] = place;
    count += !known;
  }
  to.users.resize(count);
  for (auto place = std::ssize(to.places); place < count; ++place)
    to.places.push_back(static_cast<int32_t>(place));
  const auto floats = static_cast<size_t>(count * user_width_);
  if (to.parts.size() < floats) to.parts.resize(floats), to.part_gradients.resize(floats);
  std::fill_n(to.part_gradients.begin(), floats, 0.f);
}

double TrainStep::compute_leaf(int64_t unit, int64_t pass, double scale, int thread) {
  Scratch& scratch = scratch_[engine_.passes() > 1 ? unit : thread];
  float* dense_gradients = leaf(unit, thread).data();
  const int64_t begin = batch_.unit_begin[unit], end = batch_.unit_begin[unit + 1];
  const bool first = pass == 0, last = pass + 1 == engine_.passes();
  if (begin == end) {
    if (first && !adds_to_leaves()) std::fill_n(dense_gradients, dense_size_, 0.f);
    if (!last) scratch.memory.statistics.assign(1 + 2 * engine_.norm_after(pass).width, 0);
    return 0;
  }
  if (first) find_users(begin, end, scratch);

  IdBatch users{.n = std::ssize(scratch.users),
                .row = scratch.users.data(),
                .part = scratch.places.data(),
                .columns = columns_.users};
  IdGradients user_gradients{.tables = {}, .dense = dense_gradients, .adds = adds_to_leaves()};
  for (ParameterArray* table : user_tables_) {
    users.tables.push_back(table->value.data());
    user_gradients.tables.push_back(table->gradient.data());
  }
  if (first) engine_.forward_ids(Side::kUser, users, scratch.parts.data());
  const double loss =
      engine_.train_pass(pass,
                         {.n = end - begin,
                          .user_parts = scratch.parts.data(),
                          .item_parts = exchange_.parts(),
                          .user = scratch.user_of_row.data(),
                          .item = exchange_.part_of_row().data() + begin,
                          .user_id = batch_.user_row.data() + begin,
                          .item_id = batch_.item.data() + begin,
                          .columns = {columns_.users, columns_.items,
                                      batch_.row_columns.data() + begin * row_columns_count_},
                          .target = batch_.target.data() + begin,
                          .dropout_key = batch_.dropout_key.data() + begin},
                         scale,
                         {.user_parts = scratch.part_gradients.data(),
                          .item_parts = exchange_.row_gradients(),
                          .item_row = exchange_.gradient_row().data() + begin,
                          .dense = dense_gradients,
                          .adds = adds_to_leaves()},
                         scratch.memory);
  if (!last) return loss;
  engine_.backward_ids(Side::kUser, users, scratch.part_gradients.data(), user_gradients);
  if (!user_counts_.empty()) {
    for (const int32_t user : scratch.users) user_counts_[user] = 0;
    for (int64_t k = begin; k < end; k += group_)
      ++user_counts_[batch_.user_row[k]];  // once a sample
    parameters_.penalize(ArrayKind::kUserTable, scratch.users, user_counts_, scale);
    penalize_codes(engine_, parameters_, Side::kUser, users, user_counts_, scale,
                   leaf(unit, thread));
  }
  return loss;
}

void TrainStep::return_item_gradients(double scale) {
  exchange_.return_item_gradients(item_part_sums_.data(), pool_);
  if (!item_counts_.empty()) exchange_.count_rows(item_counts_);
  pool_.parallel_for(units_, [&](int64_t unit, int thread) {
    const Range owned = exchange_.owned_of_unit(unit);
    IdGradients gradients{
        .tables = {}, .dense = leaf(unit, thread).data(), .adds = adds_to_leaves()};
    for (ParameterArray* table : item_tables_) gradients.tables.push_back(table->gradient.data());
    for (int64_t k = owned.begin; k < owned.end; ++k)
      parameters_.item_touched[exchange_.owned()[k]] = 1;
    const IdBatch items = item_batch(owned);
    engine_.backward_ids(Side::kItem, items, item_part_sums_.data(), gradients);
    if (item_counts_.empty()) return;
    parameters_.penalize(ArrayKind::kItemTable,
                         exchange_.owned().subspan(owned.begin, owned.size()), item_counts_, scale);
    penalize_codes(engine_, parameters_, Side::kItem, items, item_counts_, scale,
                   leaf(unit, thread));
  });
}

}  // namespace kt
