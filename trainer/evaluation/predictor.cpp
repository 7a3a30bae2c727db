#include "trainer/evaluation/predictor.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "launch/base/flush_small.h"
#include "launch/base/order_keys.h"
#include "launch/base/progress.h"
#include "sharding/gather_shards.h"
#include "trainer/evaluation/encoded_users.h"
#include "trainer/evaluation/history_scores.h"
#include "trainer/evaluation/tree_scores.h"

namespace kt {
namespace {

constexpr int64_t kScoresAtOnce = 1 << 20;  // of catalogues

/// With every part computed once. The dense weights are its own, and so is the engine that computes with them: the
/// problem's goes on with others.
class HostPredictor final : public Predictor {
 public:
  HostPredictor(const Problem& problem, const Parameters& parameters, Communicator& comm)
      : problem_(problem),
        engine_(problem.engine->clone()),
        dense_(dense_of(*engine_, parameters)),
        columns_(step_columns(problem)) {
    engine_->set_dense(dense_);
    if (problem.system.history_weights) history_.emplace(problem, parameters, comm);
    if (problem.system.trees) trees_.emplace(problem, parameters);
    if (problem.system.encoder) {
      encoded_users_ = encode_users(problem, parameters, comm);
      columns_.users = encoded_users_.data();
    }
    user_parts_ = parts_of(Side::kUser, {0, problem.user_rows(comm.world()).size()}, parameters);
    std::vector<float> own = parts_of(Side::kItem, parameters.held_items(), parameters);
    if (parameters.holding() == Holding::kReplica) {
      item_parts_ = std::move(own);
      return;
    }
    item_parts_ =
        gather_blocks<float>(comm, own, parameters.item_begin(), engine_->part_width(Side::kItem));
  }

  void predict(const Pairs& pairs, ThreadPool& pool, std::span<float> out) const override {
    pool.parallel_for(pairs.block_count(), [&](int64_t b, int) {
      const Range block = pairs.block(b);
      predict_block(pairs.users_of(b), std::span(pairs.item).subspan(block.begin, block.size()),
                    out.subspan(block.begin, block.size()));
      advance_progress(block.size());
    });
  }

 private:
  void predict_block(std::span<const int32_t> rows, std::span<const int32_t> items,
                     std::span<float> out) const {
    const std::vector<float> row_columns = columns_of(rows, items);
    const bool of_play_time = problem_.play_times.has_value();
    std::vector<float> outputs(of_play_time ? items.size() * engine_->output_width() : 0);
    engine_->predict_rows({.n = std::ssize(items),
                           .user_parts = user_parts_.data(),
                           .item_parts = item_parts_.data(),
                           .user = rows.data(),
                           .item = items.data(),
                           .item_id = items.data(),
                           .columns = {columns_.users, columns_.items, row_columns.data()}},
                          of_play_time ? outputs.data() : out.data());
    const FlushSmall flush;  // as on devices
    if (of_play_time)
      problem_.play_times->make_scores(outputs, items, out);
    else
      problem_.system.objective.make_scores(out);
  }

  /// Those of the rows themselves. Shapes: users, items [n], result [n, row columns].
  std::vector<float> columns_of(std::span<const int32_t> users,
                                std::span<const int32_t> items) const {
    if (history_) return history_->of(users, items);
    if (trees_) return trees_->of(users, items);
    return problem_.columns.of_pairs(users, items);
  }

  /// Those of the graph, which are the first.
  static std::vector<float> dense_of(const Engine& engine, const Parameters& parameters) {
    int64_t size = 0;
    for (const ParameterSpec& spec : engine.parameters())
      if (spec.kind == ParameterKind::kDense) size += spec.size();
    return {parameters.dense.begin(), parameters.dense.begin() + size};
  }

  /// Of all users of this rank, or all items it holds.
  std::vector<float> parts_of(Side side, Range held, const Parameters& parameters) const {
    IdBatch batch;
    const ArrayKind kind = side == Side::kUser ? ArrayKind::kUserTable : ArrayKind::kItemTable;
    for (size_t a = 0; a < engine_->parameters().size(); ++a)
      if (const ParameterArray& array = parameters.arrays[a]; array.spec.kind == kind)
        batch.tables.push_back(array.value.data());
    std::vector<int32_t> rows(held.size());
    std::iota(rows.begin(), rows.end(), 0);
    batch.n = held.size();
    batch.row = rows.data();
    if (side == Side::kUser) batch.columns = columns_.users;
    if (side == Side::kItem && columns_.items)
      batch.columns = columns_.items + held.begin * engine_->column_count(side);
    std::vector<float> parts(batch.n * engine_->part_width(side));
    engine_->forward_ids(side, batch, parts.data());
    return parts;
  }

  const Problem& problem_;
  const std::unique_ptr<Engine> engine_;
  const std::vector<float> dense_;
  StepColumns columns_;
  std::optional<HistoryScores> history_;
  std::optional<TreeScores> trees_;
  std::vector<float> encoded_users_;  // [held users, columns], where they are encoded
  std::vector<float> user_parts_;  // [held users, part width]
  std::vector<float> item_parts_;  // [items, part width]
};

/// Of a user. Shapes: score [items]; left_out as in ListsWanted; seen in any order.
std::vector<Recommendation> best_of(std::span<const float> score, std::span<const uint8_t> left_out,
                                    std::span<const int32_t> seen, int64_t length) {
  std::vector<uint8_t> skipped(left_out.begin(), left_out.end());
  for (const int32_t item : seen) skipped[item] = 1;
  std::vector<uint64_t> keys;
  keys.reserve(score.size());
  for (size_t item = 0; item < score.size(); ++item)
    if (!skipped[item]) keys.push_back(rank_key(list_key(score[item]), item));
  const auto end = keys.begin() + std::min(length, std::ssize(keys));
  std::partial_sort(keys.begin(), end, keys.end());
  std::vector<Recommendation> best;
  for (auto key = keys.begin(); key != end; ++key) {
    const size_t item = position_of(*key);
    best.push_back({static_cast<int32_t>(item), score[item]});
  }
  return best;
}

}  // namespace

std::vector<std::vector<Recommendation>> Predictor::best(const ListsWanted& wanted,
                                                         ThreadPool& pool) const {
  const auto users = std::ssize(wanted.users), items = std::ssize(wanted.left_out);
  const int64_t most = std::max<int64_t>(1, kScoresAtOnce / items);
  std::vector<std::vector<Recommendation>> lists(users);
  std::vector<float> scores;
  for (int64_t begin = 0; begin < users; begin += most) {
    const int64_t count = std::min(most, users - begin);
    scores.resize(count * items);
    predict(catalogue_of(wanted.users.subspan(begin, count), items), pool, scores);
    pool.parallel_for(count, [&](int64_t k, int) {
      lists[begin + k] = best_of(std::span(scores).subspan(k * items, items), wanted.left_out,
                                 wanted.seen.of(begin + k), wanted.length);
    });
  }
  return lists;
}

std::unique_ptr<Predictor> make_host_predictor(const Problem& problem, const Parameters& parameters,
                                               Communicator& comm) {
  return std::make_unique<HostPredictor>(problem, parameters, comm);
}

}  // namespace kt
