#include "launch/collectives/shared_slots.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>
#include <fstream>
#include <functional>
#include <numeric>

#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/base/look_out.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

/// An open file's number that is closed at the end.
class File {
 public:
  explicit File(int number) : number_(number) {}
  ~File() {
    if (number_ >= 0) close(number_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int number() const { return number_; }
  bool is_open() const { return number_ >= 0; }

 private:
  int number_;
};

struct stat status_of(const File& file) {
  struct stat status = {};
  if (fstat(file.number(), &status) != 0) status = {};
  return status;
}

/// What a rank tells the others of its slot's file.
enum Field { kHost, kProcess, kFile, kDevice, kInode, kFields };
using Fields = std::array<uint64_t, kFields>;

}  // namespace

std::string this_host() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

SharedSlots::SharedSlots(Communicator& comm, int64_t bytes, int64_t unit, const std::string& host)
    : rank_(comm.world().rank), shared_(comm.world().size, 0) {
  const int64_t multiple = std::lcm(unit, static_cast<int64_t>(sysconf(_SC_PAGESIZE)));
  stride_ = (kGateBytes + bytes + multiple - 1) / multiple * multiple;
  bytes_ = stride_ * comm.world().size;
  shared_[rank_] = 1;
  map_own_memory(0, bytes_, 0);
  if (comm.world().size > 1) share(comm, host);
}

void SharedSlots::map_own_memory(int64_t offset, int64_t bytes, int flags) {
  void* memory = mmap(base_ ? base_ + offset : nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
  if (memory == MAP_FAILED)
    user_error("{} bytes of memory to exchange with other ranks: {}", bytes, std::strerror(errno));
  if (!base_) base_ = static_cast<std::byte*>(memory);
}

void SharedSlots::share(Communicator& comm, const std::string& host) {
  const World world = comm.world();
  const auto map_slot = [&](int rank, const File& file, int access) {
    return mmap(&gate(rank), stride_, access, MAP_SHARED | MAP_FIXED, file.number(), 0) !=
           MAP_FAILED;
  };
  const File own(memfd_create("kuaitrain", MFD_CLOEXEC));
  const bool has_own = own.is_open() && ftruncate(own.number(), stride_) == 0 &&
                       map_slot(world.rank, own, PROT_READ | PROT_WRITE);
  if (!has_own)
    log_warning("no shared memory of {} bytes for the ranks of this host ({}): messages instead",
                stride_, std::strerror(errno));

  const struct stat status = status_of(own);
  const Fields mine{std::hash<std::string>{}(host), static_cast<uint64_t>(getpid()),
                    static_cast<uint64_t>(has_own ? own.number() : -1), status.st_dev,
                    status.st_ino};
  std::vector<uint64_t> all(kFields * world.size);
  comm.all_gather<uint64_t>(mine, all, std::vector<int64_t>(world.size, kFields));
  std::vector<int32_t> reads(world.size, 0), read_by(world.size);
  for (int rank = 0; rank < world.size; ++rank) {
    const uint64_t* fields = all.data() + kFields * rank;
    if (rank == world.rank || fields[kHost] != mine[kHost]) continue;
    // A process of that number may be another one here, where ranks are in containers of their own.
    const File file(open(fmt::format("/proc/{}/fd/{}", fields[kProcess], fields[kFile]).c_str(),
                         O_RDONLY | O_CLOEXEC));
    const struct stat found = status_of(file);
    reads[rank] = file.is_open() && found.st_dev == fields[kDevice] &&
                  found.st_ino == fields[kInode] && map_slot(rank, file, PROT_READ);
  }
  const std::vector<int64_t> ones(world.size, 1);
  comm.all_to_all<int32_t>(reads, ones, read_by, ones);
  for (int rank = 0; rank < world.size; ++rank) {
    if (rank == world.rank) continue;
    shared_[rank] = reads[rank] && read_by[rank];
    if (reads[rank] && !shared_[rank]) map_own_memory(rank * stride_, stride_, MAP_FIXED);
    if (shared_[rank]) others_.push_back(rank);
  }
}

/// What a rank tells the others of its host when they meet. Its own to write.
struct SharedSlots::Gate {
  std::atomic<uint32_t> arrivals;  // meetings it has come to
  std::atomic<uint32_t> asleep;    // whether it waits for somebody's arrival asleep
};

SharedSlots::Gate& SharedSlots::gate(int rank) const {
  static_assert(sizeof(Gate) <= kGateBytes && std::atomic<uint32_t>::is_always_lock_free);
  return *reinterpret_cast<Gate*>(base_ + rank * stride_);
}

void SharedSlots::meet() {
  ++meetings_;
  if (others_.empty()) return;
  const Phase phase("meet", meetings_);
  const auto futex = [](std::atomic<uint32_t>& word, int operation, uint32_t value) {
    syscall(SYS_futex, &word, operation, value, nullptr, nullptr, 0);
  };
  Gate& own = gate(rank_);
  const auto now = static_cast<uint32_t>(meetings_);
  own.arrivals.store(now);
  // Whoever falls asleep after this has seen the arrival, or is woken at once by the system, which looks again.
  if (std::ranges::any_of(others_, [&](int rank) { return gate(rank).asleep.load() != 0; }))
    futex(own.arrivals, FUTEX_WAKE, INT_MAX);
  for (const int rank : others_) {
    std::atomic<uint32_t>& arrivals = gate(rank).arrivals;
    const auto come = [&] { return static_cast<int32_t>(arrivals.load() - now) >= 0; };
    if (look_out(come)) continue;
    own.asleep.store(1);
    while (!come()) futex(arrivals, FUTEX_WAIT, now - 1);
    own.asleep.store(0);
  }
}

SharedSlots::~SharedSlots() { munmap(base_, bytes_); }

}  // namespace kt
