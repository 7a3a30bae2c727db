#pragma once

#include <mpi.h>

#include <climits>

#include "launch/collectives/communicator.h"

namespace kt {

/// The MPI form of `Communicator`: host memory, blocking, on a communicator of its own whose errors are
/// returned, not fatal. Streams are null. `all_to_all` takes `in == out`, too, at the cost of a copy.
class MpiCommunicator final : public Communicator {
 public:
  /// `max_count` is the most elements one MPI call may count; larger work is cut. Tests lower it.
  /// Collective: all ranks of `parent`. Throws: PeerError.
  explicit MpiCommunicator(MPI_Comm parent, int max_count = INT_MAX);
  // The duplicate is left to MPI_Finalize: freeing it is collective, and destructors do not communicate.
  ~MpiCommunicator() override = default;
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

  World world() const override { return world_; }
  void all_reduce(const void* in, void* out, int64_t count, DataType, Reduction,
                  Stream = {}) override;
  void reduce_scatter(const void* in, void* out, int64_t count, DataType, Reduction,
                      Stream = {}) override;
  void all_gather(const void* in, void* out, std::span<const int64_t> counts, DataType,
                  Stream = {}) override;
  void broadcast(void* data, int64_t count, DataType, int root, Stream = {}) override;
  void all_to_all(const void* in, std::span<const int64_t> send_counts, void* out,
                  std::span<const int64_t> receive_counts, DataType, Stream = {}) override;
  void barrier() override;
  void synchronize(Stream) override;

  using Communicator::all_gather;
  using Communicator::all_reduce;
  using Communicator::all_to_all;
  using Communicator::broadcast;

  /// For what the interface does not have: `agree` waits without spinning.
  MPI_Comm handle() const { return comm_; }
  /// The number of the latest collective, counted from 1. Equal on all ranks.
  int64_t sequence() const { return sequence_; }

 private:
  class Call;

  MPI_Comm comm_ = MPI_COMM_NULL;
  World world_;
  int64_t max_count_;
  int64_t sequence_ = 0;
};

/// Throws PeerError with the operation, its sequence number (-1: none), this rank and MPI's own text,
/// unless `code` is MPI_SUCCESS.
void check_mpi(int code, const char* operation, int64_t sequence = -1);

}  // namespace kt
