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
/// written. Slots begin on a cache line.
class SharedSlots {
 public:
  /// Slots of `bytes`, a multiple of `unit` bytes apart; both the same on all ranks. `host`: `this_host()`, or what a
  /// test says. Warns when the system refuses memory to share. Collective: all ranks. Throws: UserError when it refuses
  /// any.
  SharedSlots(Communicator& comm, int64_t bytes, int64_t unit, const std::string& host);
  ~SharedSlots();
  SharedSlots(const SharedSlots&) = delete;
  SharedSlots& operator=(const SharedSlots&) = delete;

  /// From one slot to the next. Units: bytes.
  int64_t stride() const { return stride_; }
  std::byte* slot(int rank) const { return base_ + kGateBytes + rank * stride_; }
  /// Whether `slot(rank)` is that rank's own memory, and this rank's is to be read there too.
  bool shared_with(int rank) const { return shared_[rank]; }
  /// Waits until the ranks that share memory with this one are here, too: what each wrote before, all see after it. They
  /// are waited for awake, then asleep (launch/base/look_out.h). Collective: all ranks of a host.
  void meet();
  /// How often they met.
  int64_t meetings() const { return meetings_; }

 private:
  struct Gate;
  static constexpr int64_t kGateBytes = 64;  // before each slot
  Gate& gate(int rank) const;
  /// Maps this rank's slot and those of its host.
  void share(Communicator& comm, const std::string& host);
  /// Memory of this process alone in place of what is there.
  void map_own_memory(int64_t offset, int64_t bytes, int flags);

  const int rank_;
  int64_t stride_ = 0, bytes_ = 0;
  std::byte* base_ = nullptr;
  std::vector<uint8_t> shared_;  // [ranks]
  std::vector<int> others_;      // that share memory with this one
  int64_t meetings_ = 0;
};

}  // namespace kt
