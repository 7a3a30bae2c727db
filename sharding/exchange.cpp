#include "sharding/exchange.h"

#include <algorithm>
#include <numeric>

#include "launch/errors.h"
#include "sharding/tree_sum.h"

namespace kt {
namespace {

std::vector<ParameterArray*> of_kind(Parameters& parameters, ArrayKind kind) {
  std::vector<ParameterArray*> found;
  for (ParameterArray& array : parameters.arrays)
    if (array.spec.kind == kind) found.push_back(&array);
  return found;
}

/// Adds the rows to the gradient rows `ids` names, in order. Shapes: ids [n], rows [n, cols].
void add_rows(ParameterArray& array, std::span<const int32_t> ids, int64_t first_id,
              std::span<const float> rows) {
  const int64_t cols = array.spec.cols;
  for (size_t k = 0; k < ids.size(); ++k) {
    float* __restrict__ into = array.gradient.data() + (ids[k] - first_id) * cols;
    const float* __restrict__ from = rows.data() + static_cast<int64_t>(k) * cols;
    for (int64_t c = 0; c < cols; ++c) into[c] += from[c];
  }
}

std::vector<int64_t> times(std::span<const int64_t> counts, int64_t factor) {
  std::vector<int64_t> result(counts.begin(), counts.end());
  for (int64_t& count : result) count *= factor;
  return result;
}

int64_t sum(std::span<const int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

class ExactExchange : public Exchange {
 public:
  ExactExchange(Parameters& parameters, Communicator& comm)
      : parameters_(parameters),
        comm_(comm),
        item_tables_(of_kind(parameters, ArrayKind::kItemTable)),
        user_tables_(of_kind(parameters, ArrayKind::kUserTable)),
        dense_(of_kind(parameters, ArrayKind::kDense)) {
    const int size = comm.world().size;
    for (int rank = 0; rank < size; ++rank) {
      const Range blocks = shards_of_rank(parameters.shard_count(), {rank, size});
      for (const TreeNode& node : subtrees(blocks)) nodes_.push_back(node);
      nodes_of_rank_.push_back(static_cast<int64_t>(subtrees(blocks).size()));
      if (!item_tables_.empty()) first_item_.push_back(item_tables_[0]->block_begin[blocks.begin]);
      std::vector<Range> segments;
      for (const ParameterArray* array : dense_) {
        const int64_t cols = array->spec.cols;
        segments.push_back({array->dense_offset + array->block_begin[blocks.begin] * cols,
                            array->dense_offset + array->block_begin[blocks.end] * cols});
      }
      segments_.push_back(std::move(segments));
    }
  }

  int64_t units() const override { return parameters_.shards().size(); }

  std::vector<std::vector<float>> fetch_items(std::span<const int32_t> items) override {
    std::vector<std::vector<float>> fetched(item_tables_.size());
    if (item_tables_.empty()) return fetched;
    route(items);
    for (size_t t = 0; t < item_tables_.size(); ++t) {
      const ParameterArray& table = *item_tables_[t];
      const int64_t cols = table.spec.cols;
      std::vector<float> answer(asked_.size() * cols);
      for (size_t k = 0; k < asked_.size(); ++k)
        std::copy_n(table.value.data() + (asked_[k] - table.held.begin) * cols, cols,
                    answer.data() + static_cast<int64_t>(k) * cols);
      std::vector<float> received(items.size() * cols);
      comm_.all_to_all<float>(answer, times(asked_counts_, cols), received,
                              times(asking_counts_, cols));
      fetched[t].resize(received.size());
      for (size_t k = 0; k < sample_.size(); ++k)
        std::copy_n(received.data() + static_cast<int64_t>(k) * cols, cols,
                    fetched[t].data() + sample_[k] * cols);
    }
    return fetched;
  }

  void reduce(std::span<float> dense_units, std::span<const std::vector<float>> item_rows,
              std::span<const int32_t> users,
              std::span<const std::vector<float>> user_rows) override {
    parameters_.zero_gradients();
    reduce_dense(dense_units);
    for (size_t t = 0; t < item_tables_.size(); ++t) {
      ParameterArray& table = *item_tables_[t];
      const int64_t cols = table.spec.cols;
      std::vector<float> outgoing(item_rows[t].size());
      for (size_t k = 0; k < sample_.size(); ++k)
        std::copy_n(item_rows[t].data() + sample_[k] * cols, cols,
                    outgoing.data() + static_cast<int64_t>(k) * cols);
      std::vector<float> received(asked_.size() * cols);
      comm_.all_to_all<float>(outgoing, times(asking_counts_, cols), received,
                              times(asked_counts_, cols));
      // Received in rank order, each rank's in (shard, position) order: so in that order over all
      // ranks.
      add_rows(table, asked_, table.held.begin, received);
    }
    for (size_t t = 0; t < user_tables_.size(); ++t)
      add_rows(*user_tables_[t], users, 0, user_rows[t]);
  }

 private:
  /// Groups the samples by the owner of their item, and tells each owner which rows it is asked
  /// for.
  void route(std::span<const int32_t> items) {
    const int size = comm_.world().size;
    std::vector<int32_t> owner(items.size());
    asking_counts_.assign(size, 0);
    for (size_t k = 0; k < items.size(); ++k) {
      const auto after = std::upper_bound(first_item_.begin(), first_item_.end(), items[k]);
      owner[k] = static_cast<int32_t>(after - first_item_.begin()) - 1;
      ++asking_counts_[owner[k]];
    }
    std::vector<int64_t> next(size, 0);
    std::partial_sum(asking_counts_.begin(), asking_counts_.end() - 1, next.begin() + 1);
    sample_.resize(items.size());
    std::vector<int32_t> asking(items.size());
    for (size_t k = 0; k < items.size(); ++k) {
      const int64_t place = next[owner[k]]++;
      sample_[place] = static_cast<int64_t>(k);
      asking[place] = items[k];
    }
    const std::vector<int64_t> ones(size, 1);
    asked_counts_.assign(size, 0);
    comm_.all_to_all<int64_t>(asking_counts_, ones, asked_counts_, ones);
    asked_.resize(sum(asked_counts_));
    comm_.all_to_all<int32_t>(asking, asking_counts_, asked_, asked_counts_);
  }

  void reduce_dense(std::span<float> leaves) {
    const auto width = static_cast<int64_t>(parameters_.dense.size());
    const int size = comm_.world().size;
    sum_subtrees(leaves, width, parameters_.shards());

    std::vector<int64_t> send_counts, receive_counts;
    std::vector<float> outgoing;
    const int64_t mine = size_of(segments_[comm_.world().rank]);
    const std::vector<TreeNode> own = subtrees(parameters_.shards());
    for (int rank = 0; rank < size; ++rank) {
      for (const TreeNode& node : own) {
        const float* buffer =
            leaves.data() + (node.first_leaf() - parameters_.shards().begin) * width;
        for (const Range& segment : segments_[rank])
          outgoing.insert(outgoing.end(), buffer + segment.begin, buffer + segment.end);
      }
      send_counts.push_back(static_cast<int64_t>(own.size()) * size_of(segments_[rank]));
      receive_counts.push_back(nodes_of_rank_[rank] * mine);
    }
    std::vector<float> received(sum(receive_counts));
    comm_.all_to_all<float>(outgoing, send_counts, received, receive_counts);
    finish_tree(received, mine, nodes_);
    const float* from = received.data();
    for (ParameterArray* array : dense_) {
      std::copy_n(from, array->gradient.size(), array->gradient.begin());
      from += array->gradient.size();
    }
  }

  static int64_t size_of(std::span<const Range> segments) {
    int64_t size = 0;
    for (const Range& segment : segments) size += segment.size();
    return size;
  }

  Parameters& parameters_;
  Communicator& comm_;
  std::vector<ParameterArray*> item_tables_, user_tables_, dense_;
  std::vector<TreeNode> nodes_;         // every rank's subtrees, in leaf order
  std::vector<int64_t> nodes_of_rank_;  // [ranks]
  std::vector<int64_t> first_item_;     // [ranks] first item row a rank owns
  std::vector<std::vector<Range>>
      segments_;  // [ranks][dense arrays] elements of the full dense copy

  // The route of the current step. Shapes: n samples of this rank, m rows others ask this rank for.
  std::vector<int64_t> sample_;         // [n] sample of each request, grouped by owner, in order
  std::vector<int64_t> asking_counts_;  // [ranks]
  std::vector<int32_t> asked_;          // [m] item of each request to this rank
  std::vector<int64_t> asked_counts_;   // [ranks]
};

class FastExchange : public Exchange {
 public:
  FastExchange(Parameters& parameters, Communicator& comm)
      : parameters_(parameters),
        comm_(comm),
        item_tables_(of_kind(parameters, ArrayKind::kItemTable)),
        user_tables_(of_kind(parameters, ArrayKind::kUserTable)),
        dense_(of_kind(parameters, ArrayKind::kDense)) {}

  int64_t units() const override { return 1; }

  std::vector<std::vector<float>> fetch_items(std::span<const int32_t> items) override {
    items_.assign(items.begin(), items.end());
    std::vector<std::vector<float>> fetched;
    for (const ParameterArray* table : item_tables_) {
      const int64_t cols = table->spec.cols;
      std::vector<float> rows(items.size() * cols);
      for (size_t k = 0; k < items.size(); ++k)
        std::copy_n(table->value.data() + items[k] * cols, cols,
                    rows.data() + static_cast<int64_t>(k) * cols);
      fetched.push_back(std::move(rows));
    }
    return fetched;
  }

  void reduce(std::span<float> dense_units, std::span<const std::vector<float>> item_rows,
              std::span<const int32_t> users,
              std::span<const std::vector<float>> user_rows) override {
    parameters_.zero_gradients();
    comm_.all_reduce<float>(dense_units, Reduction::kSum);
    for (ParameterArray* array : dense_)
      std::copy_n(dense_units.data() + array->dense_offset, array->gradient.size(),
                  array->gradient.begin());
    for (size_t t = 0; t < item_tables_.size(); ++t) {
      add_rows(*item_tables_[t], items_, 0, item_rows[t]);
      comm_.all_reduce<float>(item_tables_[t]->gradient, Reduction::kSum);
    }
    for (size_t t = 0; t < user_tables_.size(); ++t)
      add_rows(*user_tables_[t], users, 0, user_rows[t]);
  }

 private:
  Parameters& parameters_;
  Communicator& comm_;
  std::vector<ParameterArray*> item_tables_, user_tables_, dense_;
  std::vector<int32_t> items_;
};

}  // namespace

std::unique_ptr<Exchange> make_exact_exchange(Parameters& parameters, Communicator& comm) {
  return std::make_unique<ExactExchange>(parameters, comm);
}

std::unique_ptr<Exchange> make_fast_exchange(Parameters& parameters, Communicator& comm) {
  return std::make_unique<FastExchange>(parameters, comm);
}

}  // namespace kt
