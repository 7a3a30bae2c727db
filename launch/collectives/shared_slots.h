#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "launch/collectives/communicator.h"

namespace kt {

/// The running system this process is on: ranks with the same text can share memory.
std::string this_host();

/// A slot of memory for each rank, one after the other, in every rank's address space. A rank writes to its own; those
/// of ranks on its host are their own memory, read where it lies; those of other hosts, and of ranks whose memory cannot
/// be shared, are copies that the caller brings up to date by messages. Zeros at first; pages are taken as they are
/// written.
class SharedSlots {
 public:
  /// Slots of at least `bytes`, a multiple of `unit` bytes; both the same on all ranks. `host`: `this_host()`, or what a
  /// test says. Warns when the system refuses memory to share. Collective: all ranks. Throws: UserError when it refuses
  /// any.
  SharedSlots(Communicator& comm, int64_t bytes, int64_t unit, const std::string& host);
  ~SharedSlots();
  SharedSlots(const SharedSlots&) = delete;
  SharedSlots& operator=(const SharedSlots&) = delete;

  int64_t slot_bytes() const { return slot_bytes_; }
  std::byte* slot(int rank) const { return base_ + rank * slot_bytes_; }
  /// Whether `slot(rank)` is that rank's own memory, and this rank's is to be read there too.
  bool shared_with(int rank) const { return shared_[rank]; }

 private:
  /// Maps this rank's slot and those of its host.
  void share(Communicator& comm, const std::string& host);
  /// Memory of this process alone in place of what is there.
  void map_own_memory(int64_t offset, int64_t bytes, int flags);

  int64_t slot_bytes_ = 0, bytes_ = 0;
  std::byte* base_ = nullptr;
  std::vector<uint8_t> shared_;  // [ranks]
};

}  // namespace kt
