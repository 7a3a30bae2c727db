#pragma once

#include <deque>
#include <string>
#include <vector>

#include "launch/collectives/communicator.h"
#include "launch/collectives/mpi_communicator.h"

// As CUDA and NCCL name them, so that this header needs neither.
struct ncclComm;
struct CUstream_st;
struct CUevent_st;

namespace kt {

/// The number of this rank's device, after `cudaSetDevice`: the ranks of one host take different devices,
/// whether each sees all of them or, as SLURM can bind them, only its own.
/// Collective: all ranks. Throws: AgreedError naming host, ranks and devices unless every rank has its own.
int choose_device(MpiCommunicator& control);

/// The NCCL form of `Communicator`: device memory, one device a rank.
///
/// A call enqueues on its stream and returns. A null stream is the communicator's own, which waits for no
/// other stream: callers pass the stream their buffers are made on, or order the two by an event. Whatever
/// their streams, collectives run in the order of the calls. `all_to_all` needs `in != out`. None of the
/// calls may be captured into a CUDA graph.
///
/// Errors, and silence of `parallel.timeout_s`, are found by `synchronize` and `barrier`, errors by every
/// later call as well: NCCL's communicator is aborted (a few seconds at most, ncclCommAbort can hang) and a
/// PeerError names the oldest collective that is not done.
class NcclCommunicator final : public Communicator {
 public:
  /// Takes the rank's device and meets the other ranks; `control` is used here alone.
  /// Collective: all ranks of `control`. Throws: AgreedError as choose_device; PeerError.
  explicit NcclCommunicator(MpiCommunicator& control);
  // Without `finish` the device's resources are left to the end of the process: freeing them can wait for
  // other ranks, and destructors do not communicate.
  ~NcclCommunicator() override = default;
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

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

  /// Waits for every collective, then frees NCCL's communicator, the events and the stream, in this order.
  /// Before MPI ends. Nothing but the destructor may follow.
  /// Collective: all ranks. Throws: PeerError.
  void finish();

  int device() const { return device_; }
  /// The number of the latest collective, counted from 1. Equal on all ranks.
  int64_t sequence() const { return sequence_; }

 private:
  class Call;
  struct Name {
    const char* operation;
    int64_t sequence = -1;
  };
  struct Issued {
    Name name;
    CUstream_st* stream;
    CUevent_st* end;
  };

  void connect(MpiCommunicator& control);
  bool forget_done();
  template <class Done>
  void wait(Name, Done&&);
  void check_cuda(int code, Name);
  void check_nccl(int code, Name);
  Name oldest(Name otherwise) const;
  [[noreturn]] void fail(Name, const std::string& cause);
  void abort();

  World world_;
  std::string host_;
  int device_ = -1;
  ncclComm* comm_ = nullptr;
  CUstream_st* stream_ = nullptr;
  int32_t* arrived_ = nullptr;  // device memory of `barrier`, [1]
  std::deque<Issued> issued_;   // not known to be done, oldest first
  std::vector<CUevent_st*> idle_events_;
  int64_t sequence_ = 0;
};

}  // namespace kt
