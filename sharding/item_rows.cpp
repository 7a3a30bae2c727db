#include "sharding/item_rows.h"

#include <numeric>

#include "launch/base/errors.h"

namespace kt {
namespace {

/// Where each element goes when they are put in order of `key`, those of one key staying in order.
/// Shapes: key [n] in [0, keys), begin [keys + 1] written, result [n].
std::vector<int64_t> places_by(std::span<const int32_t> key, int64_t keys,
                               std::vector<int64_t>& begin) {
  begin.assign(keys + 1, 0);
  for (const int32_t k : key) ++begin[k + 1];
  std::partial_sum(begin.begin(), begin.end(), begin.begin());
  std::vector<int64_t> next(begin.begin(), begin.end() - 1), places(key.size());
  for (size_t n = 0; n < key.size(); ++n) places[n] = next[key[n]]++;
  return places;
}

}  // namespace

ItemRows exchange_item_rows(std::span<const int32_t> item, std::span<const ItemRow> rows,
                            std::span<const int64_t> item_begin, Communicator& comm) {
  KT_CHECK(item.size() == rows.size());
  const int size = comm.world().size;
  const int64_t shards = std::ssize(item_begin) - 1;
  std::vector<int32_t> owner_of(item_begin.back());
  for (int32_t rank = 0; rank < size; ++rank) {
    const Range blocks = shards_of_rank(shards, {rank, size});
    for (int64_t k = item_begin[blocks.begin]; k < item_begin[blocks.end]; ++k) owner_of[k] = rank;
  }
  std::vector<int32_t> owner(item.size());
  for (size_t n = 0; n < item.size(); ++n) owner[n] = owner_of[item[n]];
  std::vector<int64_t> begin;
  const std::vector<int64_t> places = places_by(owner, size, begin);

  std::vector<int64_t> send(size), receive(size);
  for (int rank = 0; rank < size; ++rank) send[rank] = begin[rank + 1] - begin[rank];
  const std::vector<int64_t> ones(size, 1);
  comm.all_to_all<int64_t>(send, ones, receive, ones);
  const int64_t count = std::accumulate(receive.begin(), receive.end(), int64_t{0});
  const auto exchange = [&]<class T>(auto&& column) {
    std::vector<T> outgoing(item.size()), incoming(count);
    for (size_t n = 0; n < item.size(); ++n) outgoing[places[n]] = column(n);
    comm.all_to_all<T>(outgoing, send, incoming, receive);
    return incoming;
  };
  const Range blocks = shards_of_rank(shards, comm.world());
  ItemRows result{
      .items = {item_begin[blocks.begin], item_begin[blocks.end]}, .begin = {}, .rows = {}};
  // Received rank by rank, each rank's in order: so in (shard, position) order over all of them.
  std::vector<int32_t> items =
      exchange.template operator()<int32_t>([&](size_t n) { return item[n]; });
  for (int32_t& k : items) k -= static_cast<int32_t>(result.items.begin);
  const std::vector<int64_t> to = places_by(items, result.items.size(), result.begin);
  result.rows.resize(count);
  const std::vector<int32_t> users =
      exchange.template operator()<int32_t>([&](size_t n) { return rows[n].user; });
  const std::vector<float> values =
      exchange.template operator()<float>([&](size_t n) { return rows[n].value; });
  const std::vector<float> weights =
      exchange.template operator()<float>([&](size_t n) { return rows[n].weight; });
  for (int64_t n = 0; n < count; ++n) result.rows[to[n]] = {users[n], values[n], weights[n]};
  return result;
}

}  // namespace kt
