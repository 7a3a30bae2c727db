#include "sharding/rows_of_blocks.h"

#include <algorithm>
#include <numeric>

#include "sharding/gather_shards.h"
#include "sharding/plan.h"

namespace kt {

SparseRows exchange_rows(const SparseRows& own, std::span<const int64_t> item_begin,
                         Communicator& comm) {
  const int size = comm.world().size;
  const int64_t users = own.rows();
  std::vector<int64_t> lengths, elements(size, 0);  // of each user's part, rank by rank
  SparseRows sent;
  for (int rank = 0; rank < size; ++rank) {
    const Range blocks = shards_of_rank(std::ssize(item_begin) - 1, {rank, size});
    const int64_t first = item_begin[blocks.begin], end = item_begin[blocks.end];
    for (int64_t user = 0; user < users; ++user) {
      const auto items = own.items_of(user);
      const auto from = std::ranges::lower_bound(items, first),
                 to = std::ranges::lower_bound(items, end);
      const auto values = own.values_of(user).subspan(from - items.begin(), to - from);
      sent.item.insert(sent.item.end(), from, to);
      sent.value.insert(sent.value.end(), values.begin(), values.end());
      lengths.push_back(to - from);
      elements[rank] += to - from;
    }
  }
  std::vector<int64_t> users_of = gather_to_all<int64_t>(std::span(&users, 1), comm);
  std::vector<int64_t> received(std::reduce(users_of.begin(), users_of.end()));
  comm.all_to_all<int64_t>(lengths, std::vector<int64_t>(size, users), received, users_of);

  SparseRows rows;
  for (const int64_t length : received) rows.begin.push_back(rows.begin.back() + length);
  std::vector<int64_t> counts;  // of each rank
  int64_t user = 0;
  for (const int64_t n : users_of) {
    counts.push_back(rows.begin[user + n] - rows.begin[user]);
    user += n;
  }
  rows.item.resize(rows.begin.back());
  rows.value.resize(rows.begin.back());
  comm.all_to_all<int32_t>(sent.item, elements, rows.item, counts);
  comm.all_to_all<float>(sent.value, elements, rows.value, counts);
  return rows;
}

}  // namespace kt
