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

using Bytes = std::vector<uint8_t>;

template <class T>
void append(Bytes& message, const T* from, int64_t count) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(from);
  message.insert(message.end(), bytes, bytes + count * static_cast<int64_t>(sizeof(T)));
}

/// The next `count` elements of a message.
template <class T>
void take(const uint8_t*& message, T* to, int64_t count) {
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
  std::copy_n(message, bytes, reinterpret_cast<uint8_t*>(to));
  message += bytes;
}

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

/// What each rank has of the tree over the dense gradients, and what it tells all others in `reduce`: of each unit the
/// loss and the squared norm of the gradients of each table; its request; its subtrees, or where slices are summed for
/// all its slice of the sum.
struct DenseTree {
  DenseTree(const Parameters& parameters, int size, Exchange::Leaves leaves)
      : width(std::ssize(parameters.dense)) {
    for (const ParameterArray& array : parameters.arrays)
      if (array.spec.has_gradient() && !array.spec.is_whole()) tables.push_back(&array);
    std::vector<TreeNode> nodes;
    for (int rank = 0; rank < size; ++rank) {
      const Range shards = shards_of_rank(parameters.shard_count(), {rank, size});
      const std::vector<TreeNode> own = subtrees(shards);
      nodes.insert(nodes.end(), own.begin(), own.end());
      sums_of_rank.push_back(leaves == Exchange::Leaves::kOfUnits ? static_cast<int64_t>(own.size())
                                                                  : 1);
      numbers_of_rank.push_back(shards.size() * (1 + std::ssize(tables)) + 1);
    }
    if (leaves == Exchange::Leaves::kOfUnits) {
      adds = finish_adds(nodes);
    } else {
      for (int rank = 1; rank < size; ++rank) adds.push_back({0, rank});
    }
    in_slices = sums_in_slices(static_cast<double>(sum(sums_of_rank)), width, size);
    for (int rank = 0; rank < size; ++rank) {
      slices.push_back({width * rank / size, width * (rank + 1) / size});
      const int64_t floats = in_slices ? slices[rank].size() : sums_of_rank[rank] * width;
      told_bytes.push_back(numbers_of_rank[rank] * static_cast<int64_t>(sizeof(double)) +
                           (floats + 1) / 2 * 2 * kFloatBytes);
    }
  }

  int64_t width;
  std::vector<const ParameterArray*> tables;
  std::vector<int64_t> sums_of_rank;  ///< subtrees; of threads' leaves one sum
  std::vector<TreeAdd> adds;          ///< what is left to add when all have theirs
  std::vector<int64_t> numbers_of_rank, told_bytes;
  bool in_slices;
  std::vector<Range> slices;  ///< of the dense gradients
};

/// Where things lie in a rank's slot: parts first, then at these offsets (bytes). The same on all ranks. What is
/// announced has two places, of the step at hand and of the next one.
struct Layout {
  /// Collective: all ranks.
  Layout(Communicator& comm, const Exchange::Options& options, int64_t held, int64_t threads,
         const DenseTree& tree) {
    std::array<int64_t, 2> most{held, options.most_rows};
    comm.all_reduce(std::span<int64_t>(most), Reduction::kMax);
    rows = most[1];
    int64_t end = 0;
    const auto place = [&](int64_t size) {
      const int64_t begin = end;
      end = (end + size + 63) / 64 * 64;  // whole cache lines
      return begin;
    };
    place(most[0] * options.part_width * kFloatBytes);
    gradients = place(rows * options.part_width * kFloatBytes);
    for (int64_t& offset : requests) offset = place(rows * static_cast<int64_t>(sizeof(int32_t)));
    for (int64_t& offset : sections)
      offset = place(threads * static_cast<int64_t>(sizeof(Section)));
    told = place(std::ranges::max(tree.told_bytes));
    bytes = end;
  }

  int64_t rows;  ///< at most
  int64_t gradients, told, bytes;
  std::array<int64_t, 2> requests, sections;
};

class ExactExchange : public Exchange {
 public:
  ExactExchange(Parameters& parameters, Communicator& comm, const Options& options)
      : Exchange(options.leaves),
        parameters_(parameters),
        comm_(comm),
        width_(options.part_width),
        first_item_(parameters.held_items().begin),
        held_(parameters.held_items().size()),
        threads_(comm, options.threads),
        tree_(parameters, comm.world().size, leaves_),
        layout_(comm, options, held_, threads_.all(), tree_),
        slots_(comm, layout_.bytes, std::max<int64_t>(width_, 1) * kFloatBytes, options.host),
        slot_parts_(width_ > 0 ? slots_.stride() / (width_ * kFloatBytes) : 0),
        needed_(held_, 0),
        found_(held_),
        gradient_(tree_.width) {
    const int size = comm.world().size;
    for (int rank = 0; rank < size; ++rank) {
      const Range blocks = shards_of_rank(parameters.shard_count(), {rank, size});
      for (int64_t thread = 0; thread < threads_.of_rank(rank); ++thread) {
        const std::vector<int64_t>& begin = parameters.item_begin();
        const Range own = blocks_of_thread(blocks, rank, thread);
        for (int64_t item = begin[own.begin]; item < begin[own.end]; ++item)
          places_.push_back(
              {static_cast<int32_t>(threads_.first[rank] + thread),
               static_cast<int32_t>(rank * slot_parts_ + item - begin[blocks.begin])});
      }
    }
    for (int rank = 0; rank < size; ++rank) remote_ |= !is_here(rank);
    comm.all_reduce(std::span<int32_t>(&remote_, 1), Reduction::kMax);
    if (slot_parts_ * size > INT32_MAX)
      throw AgreedError(fmt::format(
          "{} ranks of {} threads in all and {} rows a step each: {} places to exchange, "
          "expected at most {}; lower train.global_batch, the ranks or parallel.threads",
          size, threads_.all(), layout_.rows, slot_parts_ * size, INT32_MAX));
    unit_begin_.assign(parameters.shards().size() + 1, 0);
    for (int64_t block = parameters.shards().begin; block <= parameters.shards().end; ++block)
      block_begin_.push_back(parameters.item_begin()[block] - first_item_);
  }

  void announce(std::span<const int32_t> items, ThreadPool& pool) override {
    KT_CHECK(items.empty() || !places_.empty(), "rows of items, but no items");
    KT_CHECK(std::ssize(items) <= layout_.rows, "{} rows, announced {}", items.size(),
             layout_.rows);
    // Every owner learns the items of the rows it will get gradients of, in order. A thread has a stretch of the rows:
    // of each owner it counts those first, then puts them behind those of the stretches before.
    const int next = 1 - now_;
    const int64_t stretches = pool.threads(), owners = threads_.all();
    const auto stretch_of = [&](int64_t k) {
      const auto n = std::ssize(items);
      return Range{n * k / stretches, n * (k + 1) / stretches};
    };
    filled_.assign(stretches * owners, 0);
    pool.parallel_for(stretches, [&](int64_t stretch, int) {
      int64_t* counts = filled_.data() + stretch * owners;
      const Range rows = stretch_of(stretch);
      for (int64_t k = rows.begin; k < rows.end; ++k) ++counts[places_[items[k]].owner];
    });
    Section* sections = sections_of(self(), next);
    int64_t begin = 0;
    for (int64_t owner = 0; owner < owners; ++owner) {
      sections[owner].begin = begin;
      for (int64_t stretch = 0; stretch < stretches; ++stretch)
        begin += std::exchange(filled_[stretch * owners + owner], begin);
      sections[owner].count = begin - sections[owner].begin;
    }
    next_gradient_row_.resize(items.size());
    next_part_of_row_.resize(items.size());
    int32_t* requests = requests_of(self(), next);
    pool.parallel_for(stretches, [&](int64_t stretch, int) {
      int64_t* filled = filled_.data() + stretch * owners;
      const Range rows = stretch_of(stretch);
      for (int64_t k = rows.begin; k < rows.end; ++k) {
        const Place place = places_[items[k]];
        const int64_t row = filled[place.owner]++;
        next_gradient_row_[k] = static_cast<int32_t>(row);
        next_part_of_row_[k] = place.part;
        requests[row] = items[k];
      }
    });
    announced_ = kHere;
  }

  void begin(ThreadPool& pool) override {
    KT_CHECK(announced_ != kNothing, "a step that was not announced");
    if (announced_ != kToAll)
      communication_.time([&] {
        send_counts();
        send_requests();
        slots_.meet();
      });
    announced_ = kNothing;
    now_ = 1 - now_;
    std::swap(gradient_row_, next_gradient_row_);
    std::swap(part_of_row_, next_part_of_row_);
    find_owned(pool);
  }

  Range owned_of_unit(int64_t unit) const override {
    return {unit_begin_[unit], unit_begin_[unit + 1]};
  }

  float* own_parts() override { return parts_of(self()); }
  const float* parts() const override { return parts_of(0); }
  float* row_gradients() override { return gradients_of(self()); }

  void fetch_parts() override {
    communication_.time([&] {
      send_parts();
      slots_.meet();
    });
  }

  void return_item_gradients(float* sums, ThreadPool& pool) override {
    communication_.time([&] {
      send_gradients();
      slots_.meet();
    });
    // Rank by rank, each rank's in (shard, position) order: so in that order over all ranks.
    const Range all{0, width_};
    const int64_t units = parameters_.shards().size();
    pool.parallel_for(threads_.of_rank(self()), [&](int64_t thread, int) {
      const FlushSmall flush;
      const Range blocks = blocks_of_thread({0, units}, self(), thread);
      for (int64_t k = unit_begin_[blocks.begin]; k < unit_begin_[blocks.end]; ++k)
        std::fill_n(sums + owned_[k] * width_, width_, 0.f);
      for (int rank = 0; rank < size(); ++rank) {
        const Section section = sections_of(rank, now_)[threads_.first[self()] + thread];
        const float* from = gradients_of(rank) + section.begin * width_;
        for (const int32_t item : requests_in(rank, now_, section)) {
          add_columns(from, all, sums + (item - first_item_) * width_);
          from += width_;
        }
      }
    });
  }

  void count_rows(std::span<int32_t> counts) const override {
    for (const int32_t row : owned_) counts[row] = 0;
    for (int rank = 0; rank < size(); ++rank)
      for (const int32_t item : requests_from(rank)) ++counts[item - first_item_];
  }

  Totals reduce(std::span<float> leaves, std::span<const double> losses, int32_t request,
                ThreadPool& pool) override {
    // What this rank tells: numbers, then floats.
    const auto tables = std::ssize(tree_.tables), columns = 1 + tables;
    auto* numbers = in_slot<double>(self(), layout_.told);
    pool.parallel_for(std::ssize(losses), [&](int64_t unit, int) {
      numbers[unit * columns] = losses[unit];
      for (int64_t t = 0; t < tables; ++t)
        numbers[unit * columns + 1 + t] =
            parameters_.squared_gradient_norm(*tree_.tables[t], parameters_.shards().begin + unit);
    });
    numbers[std::ssize(losses) * columns] = request;
    auto* floats = reinterpret_cast<float*>(numbers + tree_.numbers_of_rank[self()]);
    const std::span<const float> sums = sum_own(leaves, pool);
    if (tree_.in_slices)
      sum_slice(sums, {floats, static_cast<size_t>(tree_.slices[self()].size())}, pool);
    else
      std::ranges::copy(sums, floats);
    communication_.time([&] { tell(); });

    std::vector<const double*> numbers_of;
    std::vector<const float*> floats_of;
    for (int rank = 0; rank < size(); ++rank) {
      numbers_of.push_back(reinterpret_cast<const double*>(told_by(rank)));
      floats_of.push_back(
          reinterpret_cast<const float*>(numbers_of[rank] + tree_.numbers_of_rank[rank]));
    }
    if (tree_.in_slices) {
      for (int rank = 0; rank < size(); ++rank)
        std::copy_n(floats_of[rank], tree_.slices[rank].size(),
                    gradient_.begin() + tree_.slices[rank].begin);
    } else {
      finish(floats_of, gradient_, pool);
    }
    parameters_.take_dense_gradients(gradient_);
    return totals(numbers_of, pool);
  }

  int64_t meetings() const override { return slots_.meetings(); }

 private:
  struct Place {
    int32_t owner;  // thread, of all ranks'
    int32_t part;   // row of the parts of all ranks
  };
  /// How far the items of the next step have come.
  enum Announced { kNothing, kHere, kCounts, kToAll };

  int self() const { return comm_.world().rank; }
  int size() const { return comm_.world().size; }
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
  /// The item of each row of a step, `now_` or the next. Shapes: [rows].
  int32_t* requests_of(int rank, int step) const {
    return in_slot<int32_t>(rank, layout_.requests[step]);
  }
  /// Of its rows, those for each thread of each rank. Shapes: [threads of all ranks].
  Section* sections_of(int rank, int step) const {
    return in_slot<Section>(rank, layout_.sections[step]);
  }
  std::span<const int32_t> requests_in(int rank, int step, Section rows) const {
    return {requests_of(rank, step) + rows.begin, static_cast<size_t>(rows.count)};
  }
  /// Those of a thread's items, so that what it sums stays with it.
  Range blocks_of_thread(Range blocks, int rank, int64_t thread) const {
    const int64_t threads = threads_.of_rank(rank);
    return {blocks.begin + blocks.size() * thread / threads,
            blocks.begin + blocks.size() * (thread + 1) / threads};
  }
  /// What `from` has for all threads of `to`.
  Section section(int from, int to, int step) const {
    const Section& first = sections_of(from, step)[threads_.first[to]];
    const Section& last = sections_of(from, step)[threads_.first[to + 1] - 1];
    return {first.begin, last.begin + last.count - first.begin};
  }
  /// The items of the rows whose gradients this rank gets from `rank`, in order.
  std::span<const int32_t> requests_from(int rank) const {
    return requests_in(rank, now_, section(rank, self(), now_));
  }

  /// One message to each rank of another host and one from it: `put(rank, message)`, `bytes_from(rank)`, `read(rank,
  /// message)`.
  template <class Put, class BytesFrom, class Read>
  void exchange_messages(Put&& put, BytesFrom&& bytes_from, Read&& read) {
    if (!remote_) return;
    Bytes outgoing;
    std::vector<int64_t> send_counts, receive_counts;
    for (int rank = 0; rank < size(); ++rank) {
      const auto before = std::ssize(outgoing);
      if (!is_here(rank)) put(rank, outgoing);
      send_counts.push_back(std::ssize(outgoing) - before);
      receive_counts.push_back(is_here(rank) ? 0 : bytes_from(rank));
    }
    incoming_.resize(sum(receive_counts));
    comm_.all_to_all<uint8_t>(outgoing, send_counts, incoming_, receive_counts);
    const uint8_t* message = incoming_.data();
    for (int rank = 0; rank < size(); ++rank)
      if (!is_here(rank)) read(rank, message);
  }

  // How many rows the next step has for each thread of a rank.
  void put_counts(int rank, Bytes& message) const {
    for (int64_t owner = threads_.first[rank]; owner < threads_.first[rank + 1]; ++owner)
      append(message, &sections_of(self(), 1 - now_)[owner].count, 1);
  }
  int64_t count_bytes() const {
    return threads_.of_rank(self()) * static_cast<int64_t>(sizeof(int64_t));
  }
  void read_counts(int rank, const uint8_t*& message) {
    int64_t begin = 0;
    for (int64_t owner = threads_.first[self()]; owner < threads_.first[self() + 1]; ++owner) {
      Section& section = sections_of(rank, 1 - now_)[owner];
      section.begin = begin;
      take(message, &section.count, 1);
      begin += section.count;
    }
  }
  void send_counts() {
    exchange_messages([&](int rank, Bytes& message) { put_counts(rank, message); },
                      [&](int) { return count_bytes(); },
                      [&](int rank, const uint8_t*& message) { read_counts(rank, message); });
  }

  // The items of those rows.
  void put_requests(int rank, Bytes& message) const {
    const Section rows = section(self(), rank, 1 - now_);
    append(message, requests_of(self(), 1 - now_) + rows.begin, rows.count);
  }
  int64_t request_bytes(int rank) const {
    return section(rank, self(), 1 - now_).count * static_cast<int64_t>(sizeof(int32_t));
  }
  void read_requests(int rank, const uint8_t*& message) {
    take(message, requests_of(rank, 1 - now_), section(rank, self(), 1 - now_).count);
  }
  void send_requests() {
    exchange_messages([&](int rank, Bytes& message) { put_requests(rank, message); },
                      [&](int rank) { return request_bytes(rank); },
                      [&](int rank, const uint8_t*& message) { read_requests(rank, message); });
  }

  /// To each rank of another host the parts it asked for, without repeats, in the order of its first row; and the counts
  /// of the next step.
  void send_parts() {
    const bool with_next = announced_ == kHere;
    if (with_next) announced_ = kCounts;
    if (!remote_) return;
    std::vector<uint8_t> seen(places_.size(), 0);
    const auto distinct = [&](std::span<const int32_t> items) {
      std::vector<int32_t> found;
      for (const int32_t item : items)
        if (!std::exchange(seen[item], uint8_t{1})) found.push_back(item);
      for (const int32_t item : found) seen[item] = 0;
      return found;
    };
    std::vector<std::vector<int32_t>> wanted(size());
    for (int rank = 0; rank < size(); ++rank)
      if (!is_here(rank))
        wanted[rank] = distinct(requests_in(self(), now_, section(self(), rank, now_)));
    exchange_messages(
        [&](int rank, Bytes& message) {
          if (with_next) put_counts(rank, message);
          for (const int32_t item : distinct(requests_from(rank)))
            append(message, own_parts() + (item - first_item_) * width_, width_);
        },
        [&](int rank) {
          return (with_next ? count_bytes() : 0) + std::ssize(wanted[rank]) * width_ * kFloatBytes;
        },
        [&](int rank, const uint8_t*& message) {
          if (with_next) read_counts(rank, message);
          for (const int32_t item : wanted[rank])
            take(message, parts_of(0) + places_[item].part * width_, width_);
        });
  }

  /// To each rank of another host the gradients of the rows whose items it owns, and the items of those of the next step.
  void send_gradients() {
    const bool with_next = announced_ == kCounts;
    if (with_next) announced_ = kToAll;
    exchange_messages(
        [&](int rank, Bytes& message) {
          const Section rows = section(self(), rank, now_);
          append(message, gradients_of(self()) + rows.begin * width_, rows.count * width_);
          if (with_next) put_requests(rank, message);
        },
        [&](int rank) {
          return section(rank, self(), now_).count * width_ * kFloatBytes +
                 (with_next ? request_bytes(rank) : 0);
        },
        [&](int rank, const uint8_t*& message) {
          take(message, gradients_of(rank), section(rank, self(), now_).count * width_);
          if (with_next) read_requests(rank, message);
        });
  }

  /// The items anybody asks this rank for, ascending. Each thread finds its own.
  void find_owned(ThreadPool& pool) {
    const int64_t threads = threads_.of_rank(self()), units = parameters_.shards().size();
    pool.parallel_for(threads, [&](int64_t thread, int) {
      for (int rank = 0; rank < size(); ++rank)
        for (const int32_t item :
             requests_in(rank, now_, sections_of(rank, now_)[threads_.first[self()] + thread]))
          needed_[item - first_item_] = 1;
      const Range blocks = blocks_of_thread({0, units}, self(), thread);
      for (int64_t block = blocks.begin; block < blocks.end; ++block) {
        const int64_t first = block_begin_[block];
        int64_t count = first;
        // Written whether needed or not: a branch would be mispredicted half of the time.
        for (int64_t row = first; row < block_begin_[block + 1]; ++row) {
          found_[count] = static_cast<int32_t>(row);
          count += std::exchange(needed_[row], uint8_t{0});
        }
        unit_begin_[block + 1] = count - first;
      }
    });
    std::partial_sum(unit_begin_.begin(), unit_begin_.end(), unit_begin_.begin());
    owned_.resize(unit_begin_.back());
    pool.parallel_for(threads, [&](int64_t thread, int) {
      const Range blocks = blocks_of_thread({0, units}, self(), thread);
      for (int64_t block = blocks.begin; block < blocks.end; ++block)
        std::copy_n(found_.begin() + block_begin_[block],
                    unit_begin_[block + 1] - unit_begin_[block],
                    owned_.begin() + unit_begin_[block]);
    });
  }

  /// This rank's sums of leaves, one after the other: its subtrees, or what its threads have.
  std::span<const float> sum_own(std::span<float> leaves, ThreadPool& pool) {
    const int64_t width = tree_.width;
    if (leaves_ == Leaves::kOfThreads) {
      add_leaves(leaves, width, pool);
      return leaves.first(width);
    }
    sum_subtrees(leaves, width, parameters_.shards(), pool);
    int64_t at = 0;
    for (const TreeNode& node : subtrees(parameters_.shards())) {
      const int64_t leaf = node.first_leaf() - parameters_.shards().begin;
      if (leaf * width != at)
        std::copy_n(leaves.begin() + leaf * width, width, leaves.begin() + at);
      at += width;
    }
    return leaves.first(at);
  }

  /// The rest of the tree. Shapes: of_rank [ranks] its sums one after the other, [.., sum.size()].
  void finish(std::span<const float* const> of_rank, std::span<float> sum, ThreadPool& pool) {
    std::vector<const float*> sums;
    for (int rank = 0; rank < size(); ++rank)
      for (int64_t k = 0; k < tree_.sums_of_rank[rank]; ++k)
        sums.push_back(of_rank[rank] + k * std::ssize(sum));
    finish_tree(sums, tree_.adds, sum, pool);
  }

  /// This rank's slice of the sum over all ranks.
  void sum_slice(std::span<const float> sums, std::span<float> slice, ThreadPool& pool) {
    const int64_t width = tree_.width, mine = std::ssize(slice);
    std::vector<float> outgoing;
    std::vector<int64_t> send_counts, receive_counts;
    for (int rank = 0; rank < size(); ++rank) {
      const Range columns = tree_.slices[rank];
      for (int64_t k = 0; k < tree_.sums_of_rank[self()]; ++k)
        outgoing.insert(outgoing.end(), sums.begin() + k * width + columns.begin,
                        sums.begin() + k * width + columns.end);
      send_counts.push_back(tree_.sums_of_rank[self()] * columns.size());
      receive_counts.push_back(tree_.sums_of_rank[rank] * mine);
    }
    std::vector<float> incoming(sum(receive_counts));
    communication_.time(
        [&] { comm_.all_to_all<float>(outgoing, send_counts, incoming, receive_counts); });
    std::vector<const float*> of_rank{incoming.data()};
    for (const int64_t count : receive_counts) of_rank.push_back(of_rank.back() + count);
    finish(of_rank, slice, pool);
  }

  /// What each rank tells is known to all afterwards.
  void tell() {
    if (!remote_) return slots_.meet();
    told_.resize(sum(tree_.told_bytes));
    comm_.all_gather<uint8_t>(
        {in_slot<uint8_t>(self(), layout_.told), static_cast<size_t>(tree_.told_bytes[self()])},
        told_, tree_.told_bytes);
  }
  const uint8_t* told_by(int rank) const {
    if (!remote_) return in_slot<uint8_t>(rank, layout_.told);
    return told_.data() +
           std::accumulate(tree_.told_bytes.begin(), tree_.told_bytes.begin() + rank, int64_t{0});
  }

  /// Shapes: of_rank [ranks] the numbers it told.
  Totals totals(std::span<const double* const> of_rank, ThreadPool& pool) {
    Totals all;
    const int64_t shards = parameters_.shard_count();
    std::vector<double> losses(shards), norms(shards);
    std::vector<const double*> of_shard;
    for (int rank = 0; rank < size(); ++rank) {
      const double* at = of_rank[rank];
      for (int64_t k = shards_of_rank(shards, {rank, size()}).size(); k > 0; --k) {
        of_shard.push_back(at);
        at += 1 + std::ssize(tree_.tables);
      }
      all.request = std::max(all.request, static_cast<int32_t>(*at));
    }
    pool.parallel_for(shards, [&](int64_t shard, int) {
      const double* at = of_shard[shard];
      losses[shard] = *at++;
      // Arrays in order, as Parameters::squared_gradient_norms.
      for (const ParameterArray& array : parameters_.arrays)
        if (array.spec.has_gradient())
          norms[shard] +=
              array.spec.is_whole() ? parameters_.squared_gradient_norm(array, shard) : *at++;
    });
    all.loss = tree_sum(losses);
    all.squared_norm = tree_sum(norms);
    return all;
  }

  Parameters& parameters_;
  Communicator& comm_;
  const int64_t width_;
  const int64_t first_item_, held_;  // items this rank has the rows of
  const Threads threads_;
  const DenseTree tree_;
  std::vector<int64_t> block_begin_;  // [own blocks + 1] held rows
  std::vector<Place> places_;         // [items]

  // What crosses ranks, in slots. Rows are in the order of the owners of their items, and of one owner in that of the
  // rows. Between two times that a place is written, all ranks of the host have met after the last one read it.
  const Layout layout_;
  SharedSlots slots_;
  const int64_t slot_parts_;  // rows of parts from one slot to the next
  int32_t remote_ = 0;        // whether some ranks share no memory
  int now_ = 0;               // which place of the two the step at hand has
  Announced announced_ = kNothing;
  std::vector<int32_t> next_part_of_row_, next_gradient_row_;  // of the announced step

  std::vector<int64_t> filled_;      // [own threads, threads of all ranks] rows announced to it
  std::vector<uint8_t> needed_;      // [held rows], 0 between steps
  std::vector<int32_t> found_;       // [held rows] of each block the owned ones, first
  std::vector<int64_t> unit_begin_;  // [own blocks + 1] in owned_
  Bytes incoming_, told_;
  std::vector<float> gradient_;  // of all dense arrays
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

  void announce(std::span<const int32_t> items, ThreadPool&) override {
    next_part_of_row_.assign(items.begin(), items.end());
  }

  void begin(ThreadPool&) override {
    std::swap(part_of_row_, next_part_of_row_);
    const std::vector<int32_t>& items = part_of_row_;
    std::ranges::fill(needed_, 0);
    for (const int32_t item : items) needed_[item] = 1;
    owned_.clear();
    for (size_t item = 0; item < needed_.size(); ++item)
      if (needed_[item]) owned_.push_back(static_cast<int32_t>(item));
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

  Totals reduce(std::span<float> leaves, std::span<const double> losses, int32_t request,
                ThreadPool& pool) override {
    const auto width = static_cast<int64_t>(parameters_.dense.size());
    add_leaves(leaves, width, pool);
    parameters_.fill_gradients();
    communication_.time([&] {
      comm_.all_reduce<float>(leaves.first(width), Reduction::kSum);
      for (ParameterArray* table : item_tables_)
        comm_.all_reduce<float>(table->gradient, Reduction::kSum);
    });
    parameters_.take_dense_gradients(leaves.first(width));

    // How many ask for each thing: the sum tells the largest, too.
    std::vector<double> norms(losses.size());
    parameters_.squared_gradient_norms(norms, pool);
    std::array<double, 2 + kRequests> sums{};
    for (size_t unit = 0; unit < losses.size(); ++unit) {
      sums[0] += losses[unit];
      sums[1] += norms[unit];
    }
    KT_CHECK(0 <= request && request < kRequests);
    sums[2 + request] = 1;
    communication_.time([&] { comm_.all_reduce(std::span<double>(sums), Reduction::kSum); });
    Totals all{.loss = sums[0], .squared_norm = sums[1]};
    for (int32_t k = 0; k < kRequests; ++k)
      if (sums[2 + k] > 0) all.request = k;
    return all;
  }

 private:
  static constexpr int32_t kRequests = 3;  // kinds of them

  Parameters& parameters_;
  Communicator& comm_;
  const int64_t width_;
  std::vector<ParameterArray*> item_tables_;
  std::vector<int32_t> next_part_of_row_;
  std::vector<uint8_t> needed_;           // [items]
  std::vector<float> parts_, gradients_;  // [items, width], [rows, width]
};

}  // namespace

bool sums_in_slices(double subtrees, int64_t dense_size, int64_t ranks) {
  constexpr double kMostBytes = 1 << 19;  // that one rank is to read
  return ranks > 1 && subtrees * static_cast<double>(dense_size * kFloatBytes) > kMostBytes;
}

std::unique_ptr<Exchange> make_exact_exchange(Parameters& parameters, Communicator& comm,
                                              const Exchange::Options& options) {
  return std::make_unique<ExactExchange>(parameters, comm, options);
}

std::unique_ptr<Exchange> make_fast_exchange(Parameters& parameters, Communicator& comm,
                                             const Exchange::Options& options) {
  return std::make_unique<FastExchange>(parameters, comm, options);
}

}  // namespace kt
