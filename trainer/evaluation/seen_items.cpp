#include "trainer/evaluation/seen_items.h"

#include <algorithm>
#include <numeric>

#include "launch/collectives/agree.h"
#include "sharding/plan.h"
#include "trainer/run/share.h"

namespace kt {

SeenItems seen_items(const Problem& problem, std::span<const int32_t> users,
                     std::span<const int32_t> user_rank, MpiCommunicator& comm) {
  const World world = comm.world();
  const Range rows = problem.user_rows(world);
  std::vector<int32_t> place(static_cast<size_t>(rows.size()), -1);  // of own users
  int32_t own_users = 0;
  for (size_t u = 0; u < users.size(); ++u)
    if (user_rank[u] == world.rank)
      place[static_cast<size_t>(problem.user_row(users[u]) - rows.begin)] = own_users++;

  std::vector<std::vector<int32_t>> own(static_cast<size_t>(own_users));
  agree(comm, [&] {
    const Range shards = shards_of_rank(problem.dataset.shards(), world);
    auto next = place.begin();
    for (int64_t number = shards.begin; number < shards.end; ++number) {
      const auto of_shard = next;
      next += problem.users_per_shard[number];
      if (std::all_of(of_shard, next, [](int32_t at) { return at < 0; })) continue;
      const Shard shard = problem.dataset.read_shard(number);
      for (int64_t k = 0; k < shard.size(); ++k)
        if (const int32_t at = of_shard[shard.user[k]]; at >= 0)
          own[static_cast<size_t>(at)].push_back(shard.item[k]);
    }
  });
  std::vector<int64_t> counts;
  std::vector<int32_t> items;
  for (std::vector<int32_t>& of_user : own) {
    std::ranges::sort(of_user);
    of_user.erase(std::unique(of_user.begin(), of_user.end()), of_user.end());
    counts.push_back(std::ssize(of_user));
    items.insert(items.end(), of_user.begin(), of_user.end());
  }
  counts = gather_to_all<int64_t>(counts, comm);
  items = gather_to_all<int32_t>(items, comm);

  // From the order of the ranks into that of the users.
  std::vector<size_t> order(users.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](size_t u) { return user_rank[u]; });
  SeenItems seen{.offsets = std::vector<int64_t>(users.size() + 1, 0), .item = {}};
  for (size_t k = 0; k < order.size(); ++k) seen.offsets[order[k] + 1] = counts[k];
  std::partial_sum(seen.offsets.begin(), seen.offsets.end(), seen.offsets.begin());
  seen.item.resize(items.size());
  auto from = items.begin();
  for (size_t k = 0; k < order.size(); ++k) {
    std::copy_n(from, counts[k], seen.item.begin() + seen.offsets[order[k]]);
    from += counts[k];
  }
  return seen;
}

}  // namespace kt
