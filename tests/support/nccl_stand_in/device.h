#pragma once

#include <cuda_runtime_api.h>
#include <mpi.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/nccl_stand_in/stand_in.h"

namespace kt::stand_in {

/// One look at a piece of work; whether it is done. Never blocks.
using Task = std::function<bool()>;

/// Tasks run one after the other: a stream, or the threads of NCCL itself.
struct Queue {
  std::deque<Task> tasks;
  int64_t delay = 0;  // looks until the first task is begun
  bool on_device = true;
};

/// The device of this process. What follows `mutex` is guarded by it; tasks run with it held.
class Device {
 public:
  static Device& get();
  std::unique_lock<std::mutex> lock() { return std::unique_lock(mutex); }

  void add(Queue* queue);
  void remove(Queue* queue);
  void push(Queue& queue, Task task);
  void wait_until_idle(std::unique_lock<std::mutex>& held_lock);
  void wake();
  void stop();

  void* allocate(size_t bytes);
  bool deallocate(void* memory);
  /// Whether the bytes are memory of the device.
  bool owns(const void* memory, size_t bytes) const;

  std::mutex mutex;
  Faults faults;
  MPI_Comm comm = MPI_COMM_NULL;  // the stand-ins' own
  bool held = false;
  bool broken = false;
  cudaError_t last_error = cudaSuccess;
  int64_t collectives = 0;
  int64_t objects = 0;
  std::vector<std::shared_ptr<void>> events;  // what a device that failed was not asked to destroy
  std::vector<std::string> calls;

 private:
  Device();
  void run();
  bool idle() const;

  std::condition_variable woken_, idle_;
  bool stopping_ = false;
  std::vector<Queue*> queues_;
  std::map<const std::byte*, std::unique_ptr<std::byte[]>> memory_;
  std::map<const std::byte*, size_t> sizes_;
  std::mt19937 random_{20};
  std::thread thread_;
};

}  // namespace kt::stand_in

struct CUstream_st : kt::stand_in::Queue {
  int device = 0;
};
