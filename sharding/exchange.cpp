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

std::vector<int64_t> times(std::span<const int64_t> counts, int64_t factor) {
  std::vector<int64_t> result(counts.begin(), counts.end());
  for (int64_t& count : result) count *= factor;
  return result;
}

int64_t sum(std::span<const int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

/// into[c] += from[c] for the columns.
void add_columns(const float* __restrict__ from, Range columns, float* __restrict__ into) {
  for (int64_t c = columns.begin; c < columns.end; ++c) into[c] += from[c];
}

/// Shares out the columns of `width`, whole vectors of 16 to each.
template <class Work>
void for_columns(int64_t width, ThreadPool& pool, Work&& work) {
  const int64_t vectors = (width + 15) / 16;
  const int64_t pieces = std::min<int64_t>(pool.threads(), vectors);
  pool.parallel_for(pieces, [&](int64_t piece, int) {
    work(
        Range{vectors * piece / pieces * 16, std::min(vectors * (piece + 1) / pieces * 16, width)});
  });
}

/// All leaves into the first, one after the other.
void add_leaves(std::span<float> leaves, int64_t width, ThreadPool& pool) {
  for_columns(width, pool, [&](Range columns) {
    for (int64_t leaf = 1; leaf * width < std::ssize(leaves); ++leaf)
      add_columns(leaves.data() + leaf * width, columns, leaves.data());
  });
}

class ExactExchange : public Exchange {
 public:
  ExactExchange(Parameters& parameters, Communicator& comm, Leaves leaves)
      : Exchange(leaves),
        parameters_(parameters),
        comm_(comm),
        dense_(of_kind(parameters, ArrayKind::kDense)),
        asking_(comm.world().size),
        asked_counts_(comm.world().size),
        wanted_counts_(comm.world().size) {
    const int size = comm.world().size;
    const std::vector<ParameterArray*> item_tables = of_kind(parameters, ArrayKind::kItemTable);
    for (int rank = 0; rank < size; ++rank) {
      const Range blocks = shards_of_rank(parameters.shard_count(), {rank, size});
      for (const TreeNode& node : subtrees(blocks)) nodes_.push_back(node);
      nodes_of_rank_.push_back(
          leaves == Leaves::kOfUnits ? static_cast<int64_t>(subtrees(blocks).size()) : 1);
      if (!item_tables.empty())
        owner_.resize(item_tables[0]->block_begin[blocks.end], static_cast<int32_t>(rank));
      std::vector<Range> segments;
      for (const ParameterArray* array : dense_) {
        const int64_t cols = array->spec.cols;
        segments.push_back({array->dense_offset + array->block_begin[blocks.begin] * cols,
                            array->dense_offset + array->block_begin[blocks.end] * cols});
      }
      segments_.push_back(std::move(segments));
    }
    unit_begin_.assign(parameters.shards().size() + 1, 0);
    if (item_tables.empty()) return;
    const ParameterArray& table = *item_tables[0];
    first_item_ = table.held.begin;
    last_seen_.resize(table.spec.rows);
    part_of_item_.resize(table.spec.rows);
    for (int64_t block = parameters.shards().begin; block <= parameters.shards().end; ++block)
      block_begin_.push_back(table.block_begin[block] - first_item_);
  }

  void route(std::span<const int32_t> items) override {
    KT_CHECK(items.empty() || !owner_.empty(), "rows of items, but no item table");
    const int size = comm_.world().size, self = comm_.world().rank;
    for (auto& rows : asking_) rows.clear();
    for (size_t k = 0; k < items.size(); ++k)
      asking_[owner_[items[k]]].push_back(static_cast<int32_t>(k));

    // Every owner learns the items of the rows it will get gradients of, in order. Gradients go out from where they
    // are written: those for others, rank by rank, then a rank's own.
    std::vector<int64_t> counts(size), ones(size, 1);
    requests_.clear();
    gradient_row_.resize(items.size());
    for (int rank = 0; rank < size; ++rank) {
      if (rank == self) continue;
      counts[rank] = std::ssize(asking_[rank]);
      for (const int32_t row : asking_[rank]) {
        gradient_row_[row] = static_cast<int32_t>(requests_.size());
        requests_.push_back(items[row]);
      }
    }
    auto place = static_cast<int32_t>(requests_.size());
    for (const int32_t row : asking_[self]) gradient_row_[row] = place++;
    routing_.time([&] {
      comm_.all_to_all<int64_t>(counts, ones, asked_counts_, ones);
      asked_.resize(sum(asked_counts_));
      comm_.all_to_all<int32_t>(requests_, counts, asked_, asked_counts_);
    });

    find_owned(items);
    // The parts of others come without repeats, in the order of their first row.
    part_count_ = std::ssize(owned_);
    part_of_row_.resize(items.size());
    ++time_;
    for (int rank = 0; rank < size; ++rank) {
      const int64_t before = part_count_;
      for (const int32_t row : asking_[rank]) {
        const int32_t item = items[row];
        if (rank != self && last_seen_[item] != time_) {
          last_seen_[item] = time_;
          part_of_item_[item] = static_cast<int32_t>(part_count_++);
        }
        part_of_row_[row] = part_of_item_[item];
      }
      wanted_counts_[rank] = part_count_ - before;
    }
    find_answers();
  }

  Range owned_of_unit(int64_t unit) const override {
    return {unit_begin_[unit], unit_begin_[unit + 1]};
  }

  void fetch_parts(std::span<float> parts, int64_t width) override {
    outgoing_.resize(answers_.size() * width);
    for (size_t k = 0; k < answers_.size(); ++k)
      std::copy_n(parts.data() + answers_[k] * width, width,
                  outgoing_.data() + static_cast<int64_t>(k) * width);
    communication_.time([&] {
      comm_.all_to_all<float>(outgoing_, times(answer_counts_, width),
                              parts.subspan(owned_.size() * width), times(wanted_counts_, width));
    });
  }

  void return_item_gradients(std::span<const float> rows, int64_t width, std::span<float> sums,
                             ThreadPool& pool) override {
    const int size = comm_.world().size, self = comm_.world().rank;
    std::vector<int64_t> counts(size);
    for (int rank = 0; rank < size; ++rank)
      if (rank != self) counts[rank] = std::ssize(asking_[rank]) * width;
    const size_t sent = requests_.size() * width;
    incoming_.resize(asked_.size() * width);
    communication_.time([&] {
      comm_.all_to_all<float>(rows.first(sent), counts, incoming_, times(asked_counts_, width));
    });
    // Rank by rank, each rank's in (shard, position) order: so in that order over all ranks.
    for_columns(width, pool, [&](Range columns) {
      for (size_t k = 0; k < owned_.size(); ++k)
        std::fill_n(sums.data() + static_cast<int64_t>(k) * width + columns.begin, columns.size(),
                    0.f);
      int64_t at = 0;
      for (int rank = 0; rank < size; ++rank) {
        if (rank == self) {
          const float* from = rows.data() + sent;
          for (const int32_t row : asking_[self]) {
            add_columns(from, columns, sums.data() + part_of_row_[row] * width);
            from += width;
          }
          continue;
        }
        for (const int64_t end = at + asked_counts_[rank]; at < end; ++at)
          add_columns(incoming_.data() + at * width, columns,
                      sums.data() + asked_parts_[at] * width);
      }
    });
  }

  void reduce(std::span<float> leaves, ThreadPool& pool) override {
    const auto width = static_cast<int64_t>(parameters_.dense.size());
    const int size = comm_.world().size;
    std::vector<int64_t> own;  // leaves that hold this rank's sums
    if (leaves_ == Leaves::kOfUnits) {
      sum_subtrees(leaves, width, parameters_.shards(), pool);
      for (const TreeNode& node : subtrees(parameters_.shards()))
        own.push_back(node.first_leaf() - parameters_.shards().begin);
    } else {
      add_leaves(leaves, width, pool);
      own.push_back(0);
    }

    std::vector<int64_t> send_counts, receive_counts;
    outgoing_.clear();
    const int64_t mine = size_of(segments_[comm_.world().rank]);
    for (int rank = 0; rank < size; ++rank) {
      for (const int64_t leaf : own) {
        const float* buffer = leaves.data() + leaf * width;
        for (const Range& segment : segments_[rank])
          outgoing_.insert(outgoing_.end(), buffer + segment.begin, buffer + segment.end);
      }
      send_counts.push_back(static_cast<int64_t>(own.size()) * size_of(segments_[rank]));
      receive_counts.push_back(nodes_of_rank_[rank] * mine);
    }
    incoming_.resize(sum(receive_counts));
    communication_.time(
        [&] { comm_.all_to_all<float>(outgoing_, send_counts, incoming_, receive_counts); });
    if (leaves_ == Leaves::kOfUnits)
      finish_tree(incoming_, mine, nodes_);
    else
      add_leaves(incoming_, mine, pool);
    const float* from = incoming_.data();
    for (ParameterArray* array : dense_) {
      std::copy_n(from, array->gradient.size(), array->gradient.begin());
      from += array->gradient.size();
    }
  }

 private:
  /// The items anybody asks this rank for, ascending, and their place among the parts.
  void find_owned(std::span<const int32_t> items) {
    const std::vector<int32_t>& own_rows = asking_[comm_.world().rank];
    ++time_;
    for (const int32_t row : own_rows) last_seen_[items[row]] = time_;
    for (const int32_t item : asked_) last_seen_[item] = time_;
    owned_.clear();
    for (size_t block = 0; block + 1 < block_begin_.size(); ++block) {
      for (int64_t row = block_begin_[block]; row < block_begin_[block + 1]; ++row) {
        const int64_t item = first_item_ + row;
        if (last_seen_[item] != time_) continue;
        part_of_item_[item] = static_cast<int32_t>(owned_.size());
        owned_.push_back(static_cast<int32_t>(row));
      }
      unit_begin_[block + 1] = std::ssize(owned_);
    }
    asked_parts_.clear();
    for (const int32_t item : asked_) asked_parts_.push_back(part_of_item_[item]);
  }

  /// The parts to send each rank: what it asked for, without repeats, in the order of its first row.
  void find_answers() {
    answers_.clear();
    answer_counts_.assign(asked_counts_.size(), 0);
    int64_t at = 0;
    for (size_t rank = 0; rank < asked_counts_.size(); ++rank) {
      ++time_;
      for (const int64_t end = at + asked_counts_[rank]; at < end; ++at) {
        if (last_seen_[asked_[at]] == time_) continue;
        last_seen_[asked_[at]] = time_;
        answers_.push_back(asked_parts_[at]);
        ++answer_counts_[rank];
      }
    }
  }

  static int64_t size_of(std::span<const Range> segments) {
    int64_t size = 0;
    for (const Range& segment : segments) size += segment.size();
    return size;
  }

  Parameters& parameters_;
  Communicator& comm_;
  std::vector<ParameterArray*> dense_;
  std::vector<TreeNode> nodes_;         // every rank's subtrees, in leaf order
  std::vector<int64_t> nodes_of_rank_;  // [ranks]
  std::vector<std::vector<Range>>
      segments_;                      // [ranks][dense arrays] elements of the full dense copy
  std::vector<int32_t> owner_;        // [items] rank
  int64_t first_item_ = 0;            // that this rank holds
  std::vector<int64_t> block_begin_;  // [own blocks + 1] held rows

  // The route of the current step. Shapes: n rows of this rank, m rows of others with items of this rank.
  std::vector<std::vector<int32_t>> asking_;  // [ranks] rows by the owner of their item
  std::vector<int32_t> requests_;             // items of those of other owners
  std::vector<int32_t> asked_, asked_parts_;  // [m] item and row of the parts, in rank order
  std::vector<int64_t> asked_counts_, wanted_counts_;  // [ranks] rows of others; parts from them
  std::vector<int32_t> answers_;                       // rows of the parts to send, in rank order
  std::vector<int64_t> answer_counts_;                 // [ranks]
  std::vector<int64_t> unit_begin_;                    // [own blocks + 1] in owned_
  std::vector<int32_t> part_of_item_;                  // [items], valid where last_seen_ is now
  std::vector<int64_t> last_seen_;                     // [items]
  int64_t time_ = 0;
  std::vector<float> outgoing_, incoming_;
};

class FastExchange : public Exchange {
 public:
  FastExchange(Parameters& parameters, Communicator& comm)
      : Exchange(Leaves::kOfThreads),
        parameters_(parameters),
        comm_(comm),
        item_tables_(of_kind(parameters, ArrayKind::kItemTable)),
        dense_(of_kind(parameters, ArrayKind::kDense)),
        part_of_item_(item_tables_.empty() ? 0 : item_tables_[0]->spec.rows) {}

  void route(std::span<const int32_t> items) override {
    KT_CHECK(items.empty() || !item_tables_.empty(), "rows of items, but no item table");
    std::ranges::fill(part_of_item_, -1);
    for (const int32_t item : items) part_of_item_[item] = 0;
    owned_.clear();
    for (size_t item = 0; item < part_of_item_.size(); ++item) {
      if (part_of_item_[item] < 0) continue;
      part_of_item_[item] = static_cast<int32_t>(owned_.size());
      owned_.push_back(static_cast<int32_t>(item));
    }
    part_count_ = std::ssize(owned_);
    part_of_row_.clear();
    for (const int32_t item : items) part_of_row_.push_back(part_of_item_[item]);
    gradient_row_.resize(items.size());
    std::iota(gradient_row_.begin(), gradient_row_.end(), 0);
  }

  Range owned_of_unit(int64_t unit) const override {
    const int64_t units = parameters_.shards().size();
    return {part_count_ * unit / units, part_count_ * (unit + 1) / units};
  }

  void fetch_parts(std::span<float>, int64_t) override {}

  void return_item_gradients(std::span<const float> rows, int64_t width, std::span<float> sums,
                             ThreadPool& pool) override {
    for_columns(width, pool, [&](Range columns) {
      for (int64_t k = 0; k < part_count_; ++k)
        std::fill_n(sums.data() + k * width + columns.begin, columns.size(), 0.f);
      for (size_t k = 0; k < part_of_row_.size(); ++k)
        add_columns(rows.data() + static_cast<int64_t>(k) * width, columns,
                    sums.data() + part_of_row_[k] * width);
    });
  }

  void reduce(std::span<float> leaves, ThreadPool& pool) override {
    const auto width = static_cast<int64_t>(parameters_.dense.size());
    add_leaves(leaves, width, pool);
    parameters_.fill_gradients();
    communication_.time([&] {
      comm_.all_reduce<float>(leaves.first(width), Reduction::kSum);
      for (ParameterArray* table : item_tables_)
        comm_.all_reduce<float>(table->gradient, Reduction::kSum);
    });
    for (ParameterArray* array : dense_)
      std::copy_n(leaves.data() + array->dense_offset, array->gradient.size(),
                  array->gradient.begin());
  }

 private:
  Parameters& parameters_;
  Communicator& comm_;
  std::vector<ParameterArray*> item_tables_, dense_;
  std::vector<int32_t> part_of_item_;  // [items], -1: not in this step
};

}  // namespace

std::unique_ptr<Exchange> make_exact_exchange(Parameters& parameters, Communicator& comm,
                                              Exchange::Leaves leaves) {
  return std::make_unique<ExactExchange>(parameters, comm, leaves);
}

std::unique_ptr<Exchange> make_fast_exchange(Parameters& parameters, Communicator& comm) {
  return std::make_unique<FastExchange>(parameters, comm);
}

}  // namespace kt
