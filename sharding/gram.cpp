#include "sharding/gram.h"

#include <algorithm>
#include <numeric>

#include "sharding/gather_shards.h"
#include "sharding/plan.h"

namespace kt {
namespace {

/// The rows of all ranks, in rank order: in block order of users.
SparseRows gather_rows(const SparseRows& own, Communicator& comm) {
  std::vector<int64_t> counts;
  for (int64_t row = 0; row < own.rows(); ++row)
    counts.push_back(own.begin[row + 1] - own.begin[row]);
  SparseRows all;
  for (const int64_t count : gather_to_all<int64_t>(counts, comm))
    all.begin.push_back(all.begin.back() + count);
  all.item = gather_to_all<int32_t>(own.item, comm);
  all.value = gather_to_all<float>(own.value, comm);
  return all;
}

/// The elements of some items, item by item, each one's users in order.
struct Columns {
  std::vector<int64_t> begin;  // [items of the range + 1]
  struct Element {
    int32_t user;
    float value;
  };
  std::vector<Element> elements;
};

Columns columns_of(const SparseRows& rows, Range items) {
  Columns columns{.begin = std::vector<int64_t>(items.size() + 1, 0), .elements = {}};
  for (const int32_t item : rows.item)
    if (items.contains(item)) ++columns.begin[item - items.begin + 1];
  std::partial_sum(columns.begin.begin(), columns.begin.end(), columns.begin.begin());
  columns.elements.resize(columns.begin.back());
  std::vector<int64_t> next(columns.begin.begin(), columns.begin.end() - 1);
  for (int64_t user = 0; user < rows.rows(); ++user)
    for (int64_t k = rows.begin[user]; k < rows.begin[user + 1]; ++k)
      if (items.contains(rows.item[k]))
        columns.elements[next[rows.item[k] - items.begin]++] = {static_cast<int32_t>(user),
                                                                rows.value[k]};
  return columns;
}

/// Row `item` of the matrix up to its diagonal. Shapes: users the elements of the item's column, row [items], zeros.
void add_products(const SparseRows& rows, std::span<const Columns::Element> users, int32_t item,
                  double* row) {
  for (const auto [user, value] : users) {
    const auto of_item = static_cast<double>(value);
    for (int64_t k = rows.begin[user]; rows.item[k] < item; ++k)
      row[rows.item[k]] += of_item * static_cast<double>(rows.value[k]);
    row[item] += of_item * of_item;
  }
}

}  // namespace

AlignedDoubles gram_matrix(const SparseRows& own, std::span<const int64_t> item_begin,
                           Communicator& comm, ThreadPool& pool) {
  const int64_t items = item_begin.back(), shards = std::ssize(item_begin) - 1;
  const World world = comm.world();
  const Range blocks = shards_of_rank(shards, world);
  const Range own_items{item_begin[blocks.begin], item_begin[blocks.end]};
  const SparseRows rows = gather_rows(own, comm);
  const Columns columns = columns_of(rows, own_items);

  AlignedDoubles matrix(world.rank == 0 ? items * items : 0);
  std::vector<double> block;
  int64_t rounds = 0;
  for (int rank = 0; rank < world.size; ++rank)
    rounds = std::max(rounds, shards_of_rank(shards, {rank, world.size}).size());
  // In each round a block of every rank.
  const auto items_of_round = [&](int rank, int64_t round) {
    const Range of_rank = shards_of_rank(shards, {rank, world.size});
    const int64_t at = of_rank.begin + round;
    return at < of_rank.end ? Range{item_begin[at], item_begin[at + 1]} : Range{0, 0};
  };
  for (int64_t round = 0; round < rounds; ++round) {
    const Range mine = items_of_round(world.rank, round);
    block.assign(mine.size() * items, 0);
    pool.parallel_for(mine.size(), [&](int64_t k, int) {
      const int64_t item = mine.begin + k, at = item - own_items.begin;
      add_products(rows,
                   std::span(columns.elements)
                       .subspan(columns.begin[at], columns.begin[at + 1] - columns.begin[at]),
                   static_cast<int32_t>(item), block.data() + k * items);
    });
    std::vector<int64_t> send(world.size, 0), receive(world.size, 0);
    send[0] = std::ssize(block);
    if (world.rank == 0)
      for (int rank = 0; rank < world.size; ++rank)
        receive[rank] = items_of_round(rank, round).size() * items;
    std::vector<double> received(std::accumulate(receive.begin(), receive.end(), int64_t{0}));
    comm.all_to_all<double>(block, send, received, receive);
    const double* from = received.data();
    for (int rank = 0; rank < world.size && world.rank == 0; ++rank) {
      std::copy_n(from, receive[rank], matrix.begin() + items_of_round(rank, round).begin * items);
      from += receive[rank];
    }
  }
  return matrix;
}

}  // namespace kt
