#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "launch/communicator.h"

namespace kt {

/// The running system this process is on: ranks with the same text can share memory.
std::string this_host();

/// A slot of memory for each rank, one after the other, in every rank's address space. A rank writes to its own; those
/// of ranks on its host are their own memory, read where it lies; those of other hosts are copies that the caller
/// brings up to date by messages. The pages of a slot are taken as they are first written.
class SharedSlots {
 public:
  /// At least `bytes` a slot, the same on all ranks: the most that any of them wants. `host`: `this_host()`, or what a
  /// test says. Collective: all ranks. Throws: UserError when the system refuses the memory.
  SharedSlots(Communicator& comm, int64_t bytes, const std::string& host);
  ~SharedSlots();
  SharedSlots(const SharedSlots&) = delete;
  SharedSlots& operator=(const SharedSlots&) = delete;

  int64_t slot_bytes() const { return slot_bytes_; }
  std::byte* slot(int rank) const { return base_ + rank * slot_bytes_; }
  /// Whether `slot(rank)` is that rank's own memory, and this rank's is to be read there too.
  bool shared_with(int rank) const { return shared_[rank]; }

 private:
  /// Maps this rank's slot and those of its host.
  void map(Communicator& comm, const std::string& host);

  int64_t slot_bytes_ = 0, bytes_ = 0;
  std::byte* base_ = nullptr;
  std::vector<uint8_t> shared_;  // [ranks]
};

/// Rows of `width` elements: slots of `slot_rows()` rows, so that one pointer reaches the rows of all ranks.
template <class T>
class SharedArray {
 public:
  /// At least `rows` a slot. Collective: all ranks.
  SharedArray(Communicator& comm, int64_t rows, int64_t width, const std::string& host)
      // Whole pages, whatever the width.
      : slots_(comm, (rows + kRows - 1) / kRows * kRows * width * static_cast<int64_t>(sizeof(T)),
               host),
        own_(comm.world().rank),
        slot_rows_(width > 0 ? slot_size() / (kRows * width) * kRows : 0) {}

  int64_t slot_rows() const { return slot_rows_; }
  T* data() const { return reinterpret_cast<T*>(slots_.slot(0)); }
  std::span<T> slot(int rank) const {
    return {reinterpret_cast<T*>(slots_.slot(rank)), static_cast<size_t>(slot_size())};
  }
  std::span<T> own() const { return slot(own_); }
  bool shared_with(int rank) const { return slots_.shared_with(rank); }

 private:
  static constexpr int64_t kRows = 1024;
  int64_t slot_size() const { return slots_.slot_bytes() / static_cast<int64_t>(sizeof(T)); }

  SharedSlots slots_;
  int own_;
  int64_t slot_rows_;
};

}  // namespace kt
