#include <cuda_runtime_api.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "tests/support/nccl_stand_in/device.h"

namespace kt::stand_in {

Device& Device::get() {
  static Device& device = *new Device;  // never destroyed: its thread may outlive main
  return device;
}

Device::Device() {
  // Signals are for the main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Device::run() {
  std::unique_lock guard(mutex);
  while (!stopping_) {
    bool waiting = false, moved = false;
    // Streams get on at a speed of their own: their order among themselves is anyone's.
    std::shuffle(queues_.begin(), queues_.end(), random_);
    for (Queue* queue : queues_) {
      if (queue->tasks.empty() || (queue->on_device && held)) continue;
      waiting = true;
      if (queue->delay-- > 0) {
        moved = true;
      } else if (queue->tasks.front()()) {
        queue->tasks.pop_front();
        queue->delay = static_cast<int64_t>(random_() % 4);
        moved = true;
      }
    }
    if (idle()) idle_.notify_all();
    if (!waiting) {
      woken_.wait(guard);
    } else {
      // Also when work is left: the mutex goes round.
      woken_.wait_for(guard, std::chrono::microseconds(moved ? 1 : 50));
    }
  }
}

bool Device::idle() const {
  return std::all_of(queues_.begin(), queues_.end(),
                     [](const Queue* queue) { return queue->tasks.empty(); });
}

void Device::add(Queue* queue) { queues_.push_back(queue); }
void Device::remove(Queue* queue) { std::erase(queues_, queue); }

void Device::push(Queue& queue, Task task) {
  queue.tasks.push_back(std::move(task));
  woken_.notify_all();
}

void Device::wait_until_idle(std::unique_lock<std::mutex>& held_lock) {
  idle_.wait(held_lock, [&] { return idle(); });
}

void Device::wake() { woken_.notify_all(); }

void Device::stop() {
  {
    const auto guard = lock();
    stopping_ = true;
    woken_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void* Device::allocate(size_t bytes) {
  auto block = std::make_unique<std::byte[]>(bytes);
  std::byte* begin = block.get();
  std::memset(begin, 0xee, bytes);
  memory_[begin] = std::move(block);
  sizes_[begin] = bytes;
  return begin;
}

bool Device::deallocate(void* memory) {
  auto* begin = static_cast<std::byte*>(memory);
  sizes_.erase(begin);
  return memory_.erase(begin) == 1;
}

bool Device::owns(const void* memory, size_t bytes) const {
  const auto* begin = static_cast<const std::byte*>(memory);
  auto after = sizes_.upper_bound(begin);
  if (after == sizes_.begin()) return false;
  --after;
  return begin + bytes <= after->first + after->second;
}

int64_t free_bytes_of_environment() {
  const char* text = std::getenv("KT_STAND_IN_FREE_BYTES");
  return text ? std::strtoll(text, nullptr, 10) : int64_t{1} << 40;
}

void set_faults(const Faults& faults) {
  const auto guard = Device::get().lock();
  Device::get().faults = faults;
  Device::get().collectives = 0;
}

void hold() {
  const auto guard = Device::get().lock();
  Device::get().held = true;
}

void release() {
  const auto guard = Device::get().lock();
  Device::get().held = false;
  Device::get().wake();
}

std::vector<std::string> take_calls() {
  const auto guard = Device::get().lock();
  return std::exchange(Device::get().calls, {});
}

int64_t live_objects() {
  const auto guard = Device::get().lock();
  return Device::get().objects;
}

}  // namespace kt::stand_in

using kt::stand_in::Device;

struct CUevent_st {
  // Whether its latest record has been reached; those who wait for an earlier one have kept that.
  std::shared_ptr<bool> reached = std::make_shared<bool>(true);
};

namespace {

// What every call begins with: the device to oneself.
struct Entry {
  explicit Entry(const char* name = nullptr) {
    if (name) device.calls.emplace_back(name);
  }
  cudaError_t end(cudaError_t code) const {
    const cudaError_t result = device.broken ? cudaErrorECCUncorrectable : code;
    if (result != cudaSuccess) device.last_error = result;
    return result;
  }
  cudaError_t end(bool fine) const { return end(fine ? cudaSuccess : cudaErrorInvalidValue); }

  Device& device = Device::get();
  std::unique_lock<std::mutex> guard = device.lock();
};

thread_local int device_of_thread = 0;

struct ErrorText {
  cudaError_t code;
  const char *name, *text;
};
constexpr ErrorText kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "no such device"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "not done"},
    {cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable", "uncorrectable memory error"},
};

}  // namespace

const char* cudaGetErrorName(cudaError_t code) { return kErrors[code].name; }
const char* cudaGetErrorString(cudaError_t code) { return kErrors[code].text; }

cudaError_t cudaGetLastError() {
  const Entry entry;
  return std::exchange(entry.device.last_error, cudaSuccess);
}

cudaError_t cudaPeekAtLastError() { return Entry().device.last_error; }

cudaError_t cudaGetDeviceCount(int* count) {
  const Entry entry;
  *count = static_cast<int>(entry.device.faults.devices.size());
  return entry.end(entry.device.faults.no_device ? cudaErrorNoDevice : cudaSuccess);
}

cudaError_t cudaSetDevice(int device) {
  const Entry entry("cudaSetDevice");
  const bool known = device >= 0 && device < static_cast<int>(entry.device.faults.devices.size());
  if (known) device_of_thread = device;
  return entry.end(known ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaGetDevice(int* device) {
  const Entry entry;
  *device = device_of_thread;
  return entry.end(cudaSuccess);
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int size, int device) {
  const Entry entry;
  const int number = entry.device.faults.devices.at(static_cast<size_t>(device));
  const int length = std::snprintf(text, static_cast<size_t>(size), "0000:%02x:00.0", number);
  return entry.end(length > 0 && length < size);
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  const Entry entry;
  *memory = entry.device.allocate(bytes);
  ++entry.device.objects;
  return entry.end(cudaSuccess);
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const Entry entry;
  *free = *total = static_cast<size_t>(entry.device.faults.free_bytes);
  return entry.end(cudaSuccess);
}

cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  const Entry entry;
  *memory = std::malloc(bytes);
  ++entry.device.objects;
  return entry.end(*memory ? cudaSuccess : cudaErrorMemoryAllocation);
}

// As cudaFree.
cudaError_t cudaFreeHost(void* memory) {
  Entry entry("cudaFreeHost");
  entry.device.wait_until_idle(entry.guard);
  std::free(memory);
  --entry.device.objects;
  return entry.end(cudaSuccess);
}

// As the real one does, it waits for the device.
cudaError_t cudaFree(void* memory) {
  Entry entry("cudaFree");
  if (!memory) return entry.end(cudaSuccess);
  entry.device.wait_until_idle(entry.guard);
  const bool known = entry.device.deallocate(memory);
  entry.device.objects -= known;
  return entry.end(known);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const Entry entry;
  if (!stream) return entry.end(cudaErrorInvalidResourceHandle);
  if (kind != cudaMemcpyDeviceToHost && !entry.device.owns(to, bytes)) return entry.end(false);
  if (kind != cudaMemcpyHostToDevice && !entry.device.owns(from, bytes)) return entry.end(false);
  // From the host it takes a while.
  entry.device.push(*stream, [=, looks = kind == cudaMemcpyHostToDevice ? 3 : 0]() mutable {
    if (looks-- > 0) return false;
    std::copy_n(static_cast<const std::byte*>(from), bytes, static_cast<std::byte*>(to));
    return true;
  });
  return entry.end(cudaSuccess);
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  const Entry entry;
  if (!stream) return entry.end(cudaErrorInvalidResourceHandle);
  if (!entry.device.owns(to, bytes)) return entry.end(false);
  entry.device.push(*stream, [=] {
    std::fill_n(static_cast<std::byte*>(to), bytes, static_cast<std::byte>(value));
    return true;
  });
  return entry.end(cudaSuccess);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const Entry entry("cudaStreamCreateWithFlags");
  *stream = new CUstream_st;
  (*stream)->device = device_of_thread;
  entry.device.add(*stream);
  ++entry.device.objects;
  return entry.end(cudaSuccess);
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Entry entry;
  if (!stream) return entry.end(cudaErrorInvalidResourceHandle);
  return entry.end(stream->tasks.empty() ? cudaSuccess : cudaErrorNotReady);
}

// Waits for the others, too.
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Entry entry;
  if (!stream) return entry.end(cudaErrorInvalidResourceHandle);
  entry.device.wait_until_idle(entry.guard);
  return entry.end(cudaSuccess);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Entry entry;
  if (!stream || !event) return entry.end(cudaErrorInvalidResourceHandle);
  entry.device.push(*stream, [reached = event->reached] { return *reached; });
  return entry.end(cudaSuccess);
}

// Stricter than the real one, which waits by itself: a stream is destroyed when it has nothing to do.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Entry entry("cudaStreamDestroy");
  if (!stream || !stream->tasks.empty()) return entry.end(cudaErrorInvalidResourceHandle);
  entry.device.remove(stream);
  delete stream;
  --entry.device.objects;
  return entry.end(cudaSuccess);
}

// What stands for a kernel is started, as one, by a thread that has the device of the stream.
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* data) {
  const Entry entry;
  if (!stream || stream->device != device_of_thread)
    return entry.end(cudaErrorInvalidResourceHandle);
  entry.device.push(*stream, [=] {
    function(data);
    return true;
  });
  return entry.end(cudaSuccess);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  const Entry entry;
  const auto made = std::make_shared<CUevent_st>();
  *event = made.get();
  entry.device.events.push_back(made);
  ++entry.device.objects;
  return entry.end(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Entry entry;
  if (!stream || !event) return entry.end(cudaErrorInvalidResourceHandle);
  event->reached = std::make_shared<bool>(false);
  entry.device.push(*stream, [reached = event->reached] { return *reached = true; });
  return entry.end(cudaSuccess);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Entry entry;
  if (!event) return entry.end(cudaErrorInvalidResourceHandle);
  return entry.end(*event->reached ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Entry entry("cudaEventDestroy");
  std::erase_if(entry.device.events, [&](const auto& made) { return made.get() == event; });
  --entry.device.objects;
  return entry.end(cudaSuccess);
}
