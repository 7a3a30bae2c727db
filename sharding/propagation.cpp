#include "sharding/propagation.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "launch/base/errors.h"
#include "launch/base/flush_small.h"
#include "sharding/propagation_kernels.h"

namespace kt {
namespace {

constexpr int64_t kPieceRows = 32;  // enough work to be worth giving away

/// Rows [begin, end) of `count` by the threads of `pool`, piece by piece.
template <class Work>
void for_rows(int64_t count, ThreadPool& pool, Work&& work) {
  pool.parallel_for((count + kPieceRows - 1) / kPieceRows, [&](int64_t piece, int thread) {
    const FlushSmall flush;
    const int64_t begin = piece * kPieceRows;
    for (int64_t row = begin; row < std::min(begin + kPieceRows, count); ++row) work(row, thread);
  });
}

void scale_row(const float* from, float factor, int64_t width, float* to) {
  for (int64_t c = 0; c < width; ++c) to[c] = factor * from[c];
}
void add_row(const float* from, int64_t width, float* to) {
  for (int64_t c = 0; c < width; ++c) to[c] += from[c];
}

/// to += factor * from, element by element.
void add(std::span<const float> from, float factor, std::span<float> to, ThreadPool& pool) {
  constexpr int64_t kPiece = 1 << 14;
  const auto size = std::ssize(from);
  pool.parallel_for((size + kPiece - 1) / kPiece, [&](int64_t piece, int) {
    const FlushSmall flush;
    for (int64_t k = piece * kPiece; k < std::min((piece + 1) * kPiece, size); ++k)
      to[k] += factor * from[k];
  });
}

float scale_of(int64_t degree) {
  return degree > 0 ? static_cast<float>(1 / std::sqrt(static_cast<double>(degree))) : 0;
}

}  // namespace

Propagation::Propagation(const SparseRows& edges, Shape shape, Communicator& comm, ThreadPool& pool)
    : shape_(std::move(shape)),
      comm_(comm),
      pool_(pool),
      width_(shape_.width),
      own_shards_(shards_of_rank(std::ssize(shape_.item_begin) - 1, comm.world())),
      own_items_{shape_.item_begin[own_shards_.begin], shape_.item_begin[own_shards_.end]},
      item_lists_(edges.begin),
      items_(edges.item) {
  user_begin_.assign(1, 0);
  for (const int64_t users : shape_.users_per_shard)
    user_begin_.push_back(user_begin_.back() + users);
  KT_CHECK(std::ssize(shape_.users_per_shard) == own_shards_.size() &&
           user_begin_.back() == edges.rows());
  find_subtrees();
  find_users_of_items();
  find_scales();
  user_rows_.resize(edges.rows() * width_);
  item_rows_.resize(shape_.item_begin.back() * width_);
  outgoing_.assign(std::reduce(sent_to_.begin(), sent_to_.end()), 0);
  incoming_.resize(std::reduce(received_from_.begin(), received_from_.end()));
  const auto levels = std::bit_width(static_cast<uint64_t>(own_shards_.size()));
  scratch_.assign(pool.threads(), std::vector<float>((levels + 1) * width_));
}

void Propagation::find_subtrees() {
  for (const TreeNode& node : subtrees(own_shards_)) {
    const int64_t begin = node.first_leaf() - own_shards_.begin;
    subtrees_.push_back({begin, begin + node.leaves()});
  }
  std::vector<TreeNode> all;
  const int size = comm_.world().size;
  for (int rank = 0; rank < size; ++rank) {
    const Range shards = shards_of_rank(std::ssize(shape_.item_begin) - 1, {rank, size});
    const std::vector<TreeNode> of_rank = subtrees(shards);
    all.insert(all.end(), of_rank.begin(), of_rank.end());
    items_of_rank_.push_back({shape_.item_begin[shards.begin], shape_.item_begin[shards.end]});
    gathered_from_.push_back(items_of_rank_.back().size() * width_);
    sent_to_.push_back(std::ssize(subtrees_) * items_of_rank_.back().size() * width_);
    received_from_.push_back(std::ssize(of_rank) * own_items_.size() * width_);
  }
  adds_ = finish_adds(all);
}

void Propagation::find_users_of_items() {
  user_lists_.assign(shape_.item_begin.back() + 1, 0);
  for (const int32_t item : items_) ++user_lists_[item + 1];
  std::partial_sum(user_lists_.begin(), user_lists_.end(), user_lists_.begin());
  std::vector<int64_t> next(user_lists_.begin(), user_lists_.end() - 1);
  users_.resize(items_.size());
  for (int64_t user = 0; user < user_begin_.back(); ++user)
    for (const int32_t item : items_of(user)) users_[next[item]++] = static_cast<int32_t>(user);
  adds_after_.assign(users_.size(), -1);
  for (int64_t item = 0; item < shape_.item_begin.back(); ++item)
    for (const Range shards : subtrees_) plan_subtree(users_of(item, shards), shards);
}

std::span<const int32_t> Propagation::users_of(int64_t item, Range shards) const {
  const auto users = users_of(item);
  return {std::ranges::lower_bound(users, user_begin_[shards.begin]),
          std::ranges::lower_bound(users, user_begin_[shards.end])};
}

void Propagation::find_scales() {
  for (int64_t user = 0; user < user_begin_.back(); ++user)
    user_scale_.push_back(scale_of(std::ssize(items_of(user))));
  std::vector<int64_t> degrees;
  for (int64_t item = 0; item < shape_.item_begin.back(); ++item)
    degrees.push_back(std::ssize(users_of(item)));
  comm_.all_reduce(std::span(degrees), Reduction::kSum);
  for (int64_t item = own_items_.begin; item < own_items_.end; ++item)
    item_scale_.push_back(scale_of(degrees[item]));
}

void Propagation::add_means(std::span<const float> users, std::span<const float> items,
                            std::span<float> user_means, std::span<float> item_means) {
  KT_CHECK(std::ssize(users) == user_begin_.back() * width_ &&
           std::ssize(items) == own_items_.size() * width_ && user_means.size() == users.size() &&
           item_means.size() == items.size());
  users_now_.layer.assign(users.begin(), users.end());
  users_now_.sum.assign(users.begin(), users.end());
  items_now_.layer.assign(items.begin(), items.end());
  items_now_.sum.assign(items.begin(), items.end());
  for (int64_t layer = 0; layer < shape_.layers; ++layer) propagate();
  const float share = 1 / static_cast<float>(1 + shape_.layers);
  add(users_now_.sum, share, user_means, pool_);
  add(items_now_.sum, share, item_means, pool_);
}

/// A layer becomes the next one, and is added to the sum. Rows without edges stay as they are: nobody reads them.
void Propagation::propagate() {
  const auto for_connected = [&](const std::vector<float>& scale, auto&& work) {
    for_rows(std::ssize(scale), pool_, [&](int64_t row, int) {
      if (scale[row] > 0) work(row);
    });
  };
  const auto end_row = [&](Layers& of, int64_t row, float scale) {
    float *layer = &of.layer[row * width_], *sum = &of.sum[row * width_];
    scale_row(layer, scale, width_, layer);
    add_row(layer, width_, sum);
  };
  for_connected(user_scale_, [&](int64_t user) {
    scale_row(&users_now_.layer[user * width_], user_scale_[user], width_,
              &user_rows_[user * width_]);
  });
  for_connected(item_scale_, [&](int64_t item) {
    float* layer = &items_now_.layer[item * width_];
    scale_row(layer, item_scale_[item], width_, layer);
  });
  communication_.time(
      [&] { comm_.all_gather<float>(items_now_.layer, item_rows_, gathered_from_); });
  sum_users_of_items();
  for_connected(user_scale_, [&](int64_t user) {
    sum_rows(item_rows_, items_of(user), &users_now_.layer[user * width_]);
    end_row(users_now_, user, user_scale_[user]);
  });
  for_connected(item_scale_, [&](int64_t item) {
    const auto of_subtree = [&](int64_t k) {
      return &incoming_[(k * own_items_.size() + item) * width_];
    };
    for (const auto& [into, from] : adds_) add_row(of_subtree(from), width_, of_subtree(into));
    // A rank leaves out empty leaves, or sends the 0 of an empty subtree: the same but for the sign of a 0.
    float* layer = &items_now_.layer[item * width_];
    for (int64_t c = 0; c < width_; ++c) layer[c] = of_subtree(0)[c] + 0.f;
    end_row(items_now_, item, item_scale_[item]);
  });
}

/// The sums of all subtrees, at the owners of the items.
void Propagation::sum_users_of_items() {
  float* to = outgoing_.data();
  for (const Range items : items_of_rank_)
    for (const Range shards : subtrees_) {
      for_rows(items.size(), pool_, [&](int64_t item, int thread) {
        const std::span<const int32_t> users = users_of(items.begin + item, shards);
        if (!users.empty()) sum_subtree(users, to + item * width_, scratch_[thread].data());
      });
      to += items.size() * width_;
    }
  communication_.time(
      [&] { comm_.all_to_all<float>(outgoing_, sent_to_, incoming_, received_from_); });
}

/// Of an item: its users in `shards`, a whole subtree of own ones.
void Propagation::plan_subtree(std::span<const int32_t> users, Range shards) {
  if (users.empty()) return;
  int8_t& after_last = adds_after_[&users.back() - users_.data()];
  if (shards.size() == 1) {
    after_last = 0;
    return;
  }
  const int64_t middle = (shards.begin + shards.end) / 2;
  const auto split = std::ranges::lower_bound(users, user_begin_[middle]);
  const std::span<const int32_t> left(users.begin(), split), right(split, users.end());
  plan_subtree(left, {shards.begin, middle});
  plan_subtree(right, {middle, shards.end});
  if (!left.empty() && !right.empty()) ++after_last;
}

/// As planned: a shard's sum comes upon those that are waiting for their right neighbour. Shapes: scratch [levels + 1,
/// width].
void Propagation::sum_subtree(std::span<const int32_t> users, float* sum, float* scratch) const {
  const int8_t* adds_after = adds_after_.data() + (users.data() - users_.data());
  float* top = scratch;
  for (int64_t begin = 0, end = 0; end < std::ssize(users); begin = end) {
    while (adds_after[end] < 0) ++end;
    sum_rows(user_rows_, users.subspan(begin, end + 1 - begin), top);
    for (int8_t k = 0; k < adds_after[end]; ++k) {
      top -= width_;
      add_row(top + width_, width_, top);
    }
    top += width_;
    ++end;
  }
  std::copy_n(scratch, width_, sum);
}

void Propagation::sum_rows(std::span<const float> table, std::span<const int32_t> rows,
                           float* sum) const {
  const NeighbourRows of{table.data(), width_, rows.data(), std::ssize(rows)};
  if (shape_.simd == SimdLevel::kAvx512)
    avx512::sum_rows(of, sum);
  else
    avx2::sum_rows(of, sum);
}

}  // namespace kt
