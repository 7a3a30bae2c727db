#pragma once

#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "launch/collectives/communicator.h"
#include "sharding/gather_shards.h"

/// Collectives on what differs in length from rank to rank. Collective (each): all ranks.
namespace kt {

/// Rank `root`'s text on every rank.
std::string share_text(std::string text, int root, Communicator& comm);

/// Every rank's text on every rank, in rank order.
std::vector<std::string> gather_texts(const std::string& text, Communicator& comm);

/// Everyone's elements on rank 0, in rank order; empty elsewhere.
template <class T>
std::vector<T> gather_to_first(std::span<const T> own, Communicator& comm) {
  const World world = comm.world();
  const std::vector<int64_t> ones(world.size, 1);
  std::vector<int64_t> sizes(world.size), send(world.size, 0), receive(world.size, 0);
  const auto size = static_cast<int64_t>(own.size());
  comm.all_gather<int64_t>(std::span(&size, 1), sizes, ones);
  send[0] = size;
  if (world.rank == 0) receive = sizes;
  std::vector<T> all(std::accumulate(receive.begin(), receive.end(), int64_t{0}));
  comm.all_to_all<T>(own, send, all, receive);
  return all;
}

}  // namespace kt
