#include "sharding/exchange.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "launch/base/errors.h"
#include "launch/base/flush_small.h"
#include "launch/collectives/agree.h"
#include "sharding/tree_sum.h"

namespace kt {
namespace {

std::vector<ParameterArray*> of_kind(Parameters& parameters, ArrayKind kind) {
  std::vector<ParameterArray*> found;
  for (ParameterArray& array : parameters.arrays)
    if (array.spec.kind == kind) found.push_back(&array);
  return found;
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

/// Stretch of the rows a rank has for another one.
struct Section {
  int64_t begin, count;
};

constexpr int64_t kFloatBytes = sizeof(float);

/// Threads of all ranks, numbered rank by rank.
struct Threads {
  /// Collective: all ranks.
  Threads(Communicator& comm, int64_t own) : first(comm.world().size + 1, 0) {
    const std::vector<int64_t> ones(comm.world().size, 1);
    comm.all_gather<int64_t>(std::span<const int64_t>(&own, 1), std::span(first).subspan(1), ones);
    std::partial_sum(first.begin(), first.end(), first.begin());
  }
  int64_t of_rank(int rank) const { return first[rank + 1] - first[rank]; }
  int64_t all() const { return first.back(); }

  std::vector<int64_t> first;  ///< [ranks + 1]
};

/// Where things lie in a rank's slot: parts first, then at these offsets (bytes). The same on all ranks.
struct Layout {
  /// Collective: all ranks.
  Layout(Communicator& comm, const Exchange::Options& options, int64_t held, int64_t threads) {
    std::array<int64_t, 2> most{held, options.most_rows};
    comm.all_reduce(std::span<int64_t>(most), Reduction::kMax);
    rows = most[1];
    gradients = whole_lines(most[0] * options.part_width * kFloatBytes);
    requests = whole_lines(gradients + rows * options.part_width * kFloatBytes);
    sections = whole_lines(requests + rows * static_cast<int64_t>(sizeof(int32_t)));
    bytes = sections + threads * static_cast<int64_t>(sizeof(Section));
  }
  static int64_t whole_lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }

  int64_t rows;  ///< at most
  int64_t gradients, requests, sections, bytes;
};

class ExactExchange : public Exchange {
 public:
  ExactExchange(Parameters& parameters, Communicator& comm, const Options& options)
      : Exchange(options.leaves),
        parameters_(parameters),
        comm_(comm),
        width_(options.part_width),
        dense_(of_kind(parameters, ArrayKind::kDense)),
        first_item_(parameters.held_items().begin),
        held_(parameters.held_items().size()),
        threads_(comm, options.threads),
        layout_(comm, options, held_, threads_.all()),
        slots_(comm, layout_.bytes, std::max<int64_t>(width_, 1) * kFloatBytes, options.host),
        slot_parts_(width_ > 0 ? slots_.slot_bytes() / (width_ * kFloatBytes) : 0),
        next_(threads_.all()),
        needed_(held_ + 1, 0) {
    const int size = comm.world().size;
    for (int rank = 0; rank < size; ++rank) {
      const Range blocks = shards_of_rank(parameters.shard_count(), {rank, size});
      for (const TreeNode& node : subtrees(blocks)) nodes_.push_back(node);
      nodes_of_rank_.push_back(
          leaves_ == Leaves::kOfUnits ? static_cast<int64_t>(subtrees(blocks).size()) : 1);
      for (int64_t thread = 0; thread < threads_.of_rank(rank); ++thread) {
        const std::vector<int64_t>& begin = parameters.item_begin();
        const Range own = blocks_of_thread(blocks, rank, thread);
        for (int64_t item = begin[own.begin]; item < begin[own.end]; ++item)
          places_.push_back(
              {static_cast<int32_t>(threads_.first[rank] + thread),
               static_cast<int32_t>(rank * slot_parts_ + item - begin[blocks.begin])});
      }
      if (rank != comm.world().rank) (is_here(rank) ? here_ : remote_) = 1;
      std::vector<Range> segments;
      for (const ParameterArray* array : dense_) {
        const int64_t cols = array->spec.cols;
        segments.push_back({array->dense_offset + array->block_begin[blocks.begin] * cols,
                            array->dense_offset + array->block_begin[blocks.end] * cols});
      }
      segments_.push_back(std::move(segments));
    }
    std::array<int32_t, 2> any{here_, remote_};
    comm.all_reduce(std::span<int32_t>(any), Reduction::kMax);
    here_ = any[0], remote_ = any[1];
    if (slot_parts_ * size > INT32_MAX)
      throw AgreedError(fmt::format(
          "{} ranks of {} threads in all and {} rows a step each: {} places to exchange, "
          "expected at most {}; lower train.global_batch, the ranks or parallel.threads",
          size, threads_.all(), layout_.rows, slot_parts_ * size, INT32_MAX));
    unit_begin_.assign(parameters.shards().size() + 1, 0);
    for (int64_t block = parameters.shards().begin; block <= parameters.shards().end; ++block)
      block_begin_.push_back(parameters.item_begin()[block] - first_item_);
  }

  void route(std::span<const int32_t> items) override {
    KT_CHECK(items.empty() || !places_.empty(), "rows of items, but no items");
    KT_CHECK(std::ssize(items) <= layout_.rows, "{} rows, announced {}", items.size(),
             layout_.rows);
    // Every owner learns the items of the rows it will get gradients of, in order.
    std::ranges::fill(next_, 0);
    for (const int32_t item : items) ++next_[places_[item].owner];
    Section* sections = sections_of(comm_.world().rank);
    int64_t begin = 0;
    for (size_t owner = 0; owner < next_.size(); ++owner) {
      sections[owner] = {begin, next_[owner]};
      next_[owner] = begin;
      begin += sections[owner].count;
    }
    gradient_row_.resize(items.size());
    part_of_row_.resize(items.size());
    int32_t* requests = requests_of(comm_.world().rank);
    for (size_t k = 0; k < items.size(); ++k) {
      const Place place = places_[items[k]];
      const int64_t row = next_[place.owner]++;
      gradient_row_[k] = static_cast<int32_t>(row);
      part_of_row_[k] = place.part;
      requests[row] = items[k];
    }
    routing_.time([&] {
      if (remote_) {
        send_section_numbers();
        send_sections<int32_t>([&](int rank) { return requests_of(rank); }, 1);
      }
      meet();
    });
    find_owned();
  }

  Range owned_of_unit(int64_t unit) const override {
    return {unit_begin_[unit], unit_begin_[unit + 1]};
  }

  float* own_parts() override { return parts_of(comm_.world().rank); }
  const float* parts() const override { return parts_of(0); }
  float* row_gradients() override { return gradients_of(comm_.world().rank); }

  void fetch_parts() override {
    communication_.time([&] {
      if (remote_) send_parts();
      meet();
    });
  }

  void return_item_gradients(float* sums, ThreadPool& pool) override {
    communication_.time([&] {
      if (remote_) send_sections<float>([&](int rank) { return gradients_of(rank); }, width_);
      meet();
    });
    // Rank by rank, each rank's in (shard, position) order: so in that order over all ranks.
    const Range all{0, width_};
    const int64_t units = parameters_.shards().size();
    const int self = comm_.world().rank;
    pool.parallel_for(threads_.of_rank(self), [&](int64_t thread, int) {
      const FlushSmall flush;
      const Range blocks = blocks_of_thread({0, units}, self, thread);
      for (int64_t k = unit_begin_[blocks.begin]; k < unit_begin_[blocks.end]; ++k)
        std::fill_n(sums + owned_[k] * width_, width_, 0.f);
      for (int rank = 0; rank < comm_.world().size; ++rank) {
        const Section section = sections_of(rank)[threads_.first[self] + thread];
        const float* from = gradients_of(rank) + section.begin * width_;
        for (const int32_t item : requests_in(rank, section)) {
          add_columns(from, all, sums + (item - first_item_) * width_);
          from += width_;
        }
      }
    });
  }

  void count_rows(std::span<int32_t> counts) const override {
    for (const int32_t row : owned_) counts[row] = 0;
    for (int rank = 0; rank < comm_.world().size; ++rank)
      for (const int32_t item : requests_from(rank)) ++counts[item - first_item_];
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
  struct Place {
    int32_t owner;  // thread, of all ranks'
    int32_t part;   // row of the parts of all ranks
  };

  /// Whether the slots of `rank` are its own memory; else they are copies.
  bool is_here(int rank) const { return slots_.shared_with(rank); }
  template <class T>
  T* in_slot(int rank, int64_t offset) const {
    return reinterpret_cast<T*>(slots_.slot(rank) + offset);
  }
  /// Shapes: [held rows, width].
  float* parts_of(int rank) const { return in_slot<float>(rank, 0); }
  /// Shapes: [rows, width].
  float* gradients_of(int rank) const { return in_slot<float>(rank, layout_.gradients); }
  /// The item of each row. Shapes: [rows].
  int32_t* requests_of(int rank) const { return in_slot<int32_t>(rank, layout_.requests); }
  /// Of its rows, those for each thread of each rank. Shapes: [threads of all ranks].
  Section* sections_of(int rank) const { return in_slot<Section>(rank, layout_.sections); }
  std::span<const int32_t> requests_in(int rank, Section rows) const {
    return {requests_of(rank) + rows.begin, static_cast<size_t>(rows.count)};
  }
  /// Those of a thread's items, so that what it sums stays with it.
  Range blocks_of_thread(Range blocks, int rank, int64_t thread) const {
    const int64_t threads = threads_.of_rank(rank);
    return {blocks.begin + blocks.size() * thread / threads,
            blocks.begin + blocks.size() * (thread + 1) / threads};
  }
  /// What `from` has for all threads of `to`.
  Section section(int from, int to) const {
    const Section& first = sections_of(from)[threads_.first[to]];
    const Section& last = sections_of(from)[threads_.first[to + 1] - 1];
    return {first.begin, last.begin + last.count - first.begin};
  }
  Section section_for_me(int rank) const { return section(rank, comm_.world().rank); }
  /// The items of the rows whose gradients this rank gets from `rank`, in order.
  std::span<const int32_t> requests_from(int rank) const {
    return requests_in(rank, section_for_me(rank));
  }

  /// What was written before is seen by all ranks of the host after it.
  void meet() {
    if (here_) comm_.barrier();
  }

  /// Sends each rank of another host what `append(rank, outgoing)` adds to the outgoing elements.
  /// Shapes: receive_counts [ranks], result their sum, rank by rank.
  template <class T, class Append>
  std::vector<T> send_remote(std::span<const int64_t> receive_counts, Append&& append) {
    std::vector<T> outgoing, incoming(sum(receive_counts));
    std::vector<int64_t> send_counts;
    for (int rank = 0; rank < comm_.world().size; ++rank) {
      const auto before = std::ssize(outgoing);
      if (!is_here(rank)) append(rank, outgoing);
      send_counts.push_back(std::ssize(outgoing) - before);
    }
    comm_.all_to_all<T>(outgoing, send_counts, incoming, receive_counts);
    return incoming;
  }

  void send_section_numbers() {
    const int size = comm_.world().size, self = comm_.world().rank;
    std::vector<int64_t> counts;
    for (int rank = 0; rank < size; ++rank)
      counts.push_back(is_here(rank) ? 0 : threads_.of_rank(self));
    const std::vector<int64_t> incoming =
        send_remote<int64_t>(counts, [&](int rank, std::vector<int64_t>& outgoing) {
          for (int64_t owner = threads_.first[rank]; owner < threads_.first[rank + 1]; ++owner)
            outgoing.push_back(sections_of(self)[owner].count);
        });
    const int64_t* from = incoming.data();
    for (int rank = 0; rank < size; ++rank) {
      if (is_here(rank)) continue;
      int64_t begin = 0;
      for (int64_t owner = threads_.first[self]; owner < threads_.first[self + 1]; ++owner) {
        sections_of(rank)[owner] = {begin, *from};
        begin += *from++;
      }
    }
  }

  /// The rows of each section, to where its rank reads them: `rows_of(rank)`, [rows, width].
  template <class T, class RowsOf>
  void send_sections(RowsOf&& rows_of, int64_t width) {
    const int self = comm_.world().rank;
    std::vector<int64_t> counts;
    for (int rank = 0; rank < comm_.world().size; ++rank)
      counts.push_back(is_here(rank) ? 0 : section_for_me(rank).count * width);
    const std::vector<T> incoming = send_remote<T>(counts, [&](int rank, std::vector<T>& outgoing) {
      const Section rows = section(self, rank);
      const T* from = rows_of(self) + rows.begin * width;
      outgoing.insert(outgoing.end(), from, from + rows.count * width);
    });
    const T* from = incoming.data();
    for (size_t rank = 0; rank < counts.size(); from += counts[rank++])
      std::copy_n(from, counts[rank], rows_of(static_cast<int>(rank)));
  }

  /// To each rank of another host the parts it asked for, without repeats, in the order of its first row.
  void send_parts() {
    const int size = comm_.world().size, self = comm_.world().rank;
    std::vector<uint8_t> seen(places_.size(), 0);
    const auto distinct = [&](std::span<const int32_t> items) {
      std::vector<int32_t> found;
      for (const int32_t item : items)
        if (!std::exchange(seen[item], uint8_t{1})) found.push_back(item);
      for (const int32_t item : found) seen[item] = 0;
      return found;
    };
    std::vector<std::vector<int32_t>> wanted(size);
    std::vector<int64_t> counts;
    for (int rank = 0; rank < size; ++rank) {
      const Section rows = section(self, rank);
      if (!is_here(rank)) wanted[rank] = distinct(requests_in(self, rows));
      counts.push_back(std::ssize(wanted[rank]) * width_);
    }
    const std::vector<float> incoming =
        send_remote<float>(counts, [&](int rank, std::vector<float>& outgoing) {
          for (const int32_t item : distinct(requests_from(rank))) {
            const float* part = own_parts() + (item - first_item_) * width_;
            outgoing.insert(outgoing.end(), part, part + width_);
          }
        });
    const float* from = incoming.data();
    for (const std::vector<int32_t>& items : wanted)
      for (const int32_t item : items) {
        std::copy_n(from, width_, parts_of(0) + places_[item].part * width_);
        from += width_;
      }
  }

  /// The items anybody asks this rank for, ascending.
  void find_owned() {
    for (int rank = 0; rank < comm_.world().size; ++rank)
      for (const int32_t item : requests_from(rank)) needed_[item - first_item_] = 1;
    owned_.resize(held_ + 1);  // the last one is never needed
    int64_t count = 0;
    for (size_t block = 0; block + 1 < block_begin_.size(); ++block) {
      // Written whether needed or not: a branch would be mispredicted half of the time.
      for (int64_t row = block_begin_[block]; row < block_begin_[block + 1]; ++row) {
        owned_[count] = static_cast<int32_t>(row);
        count += std::exchange(needed_[row], uint8_t{0});
      }
      unit_begin_[block + 1] = count;
    }
    owned_.resize(count);
  }

  static int64_t size_of(std::span<const Range> segments) {
    int64_t size = 0;
    for (const Range& segment : segments) size += segment.size();
    return size;
  }

  Parameters& parameters_;
  Communicator& comm_;
  const int64_t width_;
  std::vector<ParameterArray*> dense_;
  const int64_t first_item_, held_;  // items this rank has the rows of
  const Threads threads_;
  std::vector<int64_t> block_begin_;    // [own blocks + 1] held rows
  std::vector<Place> places_;           // [items]
  std::vector<TreeNode> nodes_;         // every rank's subtrees, in leaf order
  std::vector<int64_t> nodes_of_rank_;  // [ranks]
  std::vector<std::vector<Range>>
      segments_;  // [ranks][dense arrays] elements of the full dense copy

  // What crosses ranks, in slots. Rows are in the order of the owners of their items, and of one owner in that of the
  // rows. All ranks meet before they are written again: in `reduce`, or when they gather the loss.
  const Layout layout_;
  const SharedSlots slots_;
  const int64_t slot_parts_;       // rows of parts from one slot to the next
  int32_t here_ = 0, remote_ = 0;  // whether some ranks share memory, and some do not

  // The route of the current step.
  std::vector<int64_t> next_;        // [threads of all ranks] row
  std::vector<uint8_t> needed_;      // [held rows], 0 between steps
  std::vector<int64_t> unit_begin_;  // [own blocks + 1] in owned_
  std::vector<float> outgoing_, incoming_;
};

class FastExchange : public Exchange {
 public:
  FastExchange(Parameters& parameters, Communicator& comm, const Options& options)
      : Exchange(Leaves::kOfThreads),
        parameters_(parameters),
        comm_(comm),
        width_(options.part_width),
        item_tables_(of_kind(parameters, ArrayKind::kItemTable)),
        needed_(parameters.held_items().size()),
        parts_(std::ssize(needed_) * width_),
        gradients_(options.most_rows * width_) {}

  void route(std::span<const int32_t> items) override {
    std::ranges::fill(needed_, 0);
    for (const int32_t item : items) needed_[item] = 1;
    owned_.clear();
    for (size_t item = 0; item < needed_.size(); ++item)
      if (needed_[item]) owned_.push_back(static_cast<int32_t>(item));
    part_of_row_.assign(items.begin(), items.end());
    gradient_row_.resize(items.size());
    std::iota(gradient_row_.begin(), gradient_row_.end(), 0);
  }

  Range owned_of_unit(int64_t unit) const override {
    const int64_t units = parameters_.shards().size(), count = std::ssize(owned_);
    return {count * unit / units, count * (unit + 1) / units};
  }

  float* own_parts() override { return parts_.data(); }
  const float* parts() const override { return parts_.data(); }
  float* row_gradients() override { return gradients_.data(); }
  void fetch_parts() override {}

  void return_item_gradients(float* sums, ThreadPool& pool) override {
    for_columns(width_, pool, [&](Range columns) {
      for (const int32_t row : owned_)
        std::fill_n(sums + row * width_ + columns.begin, columns.size(), 0.f);
      for (size_t k = 0; k < part_of_row_.size(); ++k)
        add_columns(gradients_.data() + static_cast<int64_t>(k) * width_, columns,
                    sums + part_of_row_[k] * width_);
    });
  }

  void count_rows(std::span<int32_t> counts) const override {
    for (const int32_t row : owned_) counts[row] = 0;
    for (const int32_t item : part_of_row_) ++counts[item];
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
    parameters_.take_dense_gradients(leaves.first(width));
  }

 private:
  Parameters& parameters_;
  Communicator& comm_;
  const int64_t width_;
  std::vector<ParameterArray*> item_tables_;
  std::vector<uint8_t> needed_;           // [items]
  std::vector<float> parts_, gradients_;  // [items, width], [rows, width]
};

}  // namespace

std::unique_ptr<Exchange> make_exact_exchange(Parameters& parameters, Communicator& comm,
                                              const Exchange::Options& options) {
  return std::make_unique<ExactExchange>(parameters, comm, options);
}

std::unique_ptr<Exchange> make_fast_exchange(Parameters& parameters, Communicator& comm,
                                             const Exchange::Options& options) {
  return std::make_unique<FastExchange>(parameters, comm, options);
}

}  // namespace kt
