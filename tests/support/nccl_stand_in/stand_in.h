#pragma once

#include <cstdint>
#include <string>
#include <vector>

/// What a test tells the stand-ins of CUDA and NCCL, and what it asks them. One device thread a process runs
/// the streams, each in order, all at a speed of their own; it speaks MPI, so MPI is started for several
/// threads (the stand-in is in front of MPI_Init_thread).
namespace kt::stand_in {

/// Environment variable KT_STAND_IN_FREE_BYTES; without it plenty.
int64_t free_bytes_of_environment();

/// What goes wrong in this process. Collectives are counted from 1, a group as one.
struct Faults {
  bool no_device = false;                               ///< the driver finds none
  std::vector<int> devices = {0, 1, 2, 3, 4, 5, 6, 7};  ///< of the host, those this process sees
  int64_t free_bytes = free_bytes_of_environment();     ///< what the device says it has left
  bool init_hangs = false;                              ///< this rank never meets the others
  bool init_fails = false;                              ///< it finds no network
  int64_t hang_at = 0;                                  ///< this collective never ends
  int64_t async_error_at = 0;                           ///< this one's peer is reported lost
  int64_t device_fails_at = 0;                          ///< this one leaves the device broken
  bool abort_hangs = false;
  bool finalize_hangs = false;
};
void set_faults(const Faults&);

/// The device starts nothing new, until `release`.
void hold();
void release();

/// The calls since the last time, by name: those that create, end and group.
std::vector<std::string> take_calls();
/// What was created and not freed: streams, events, memory, communicators.
int64_t live_objects();

}  // namespace kt::stand_in
