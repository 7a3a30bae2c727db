#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kt {

/// What a rank computes on and talks over, as far as `plan` needs it. Units: bytes, seconds, FLOP/s and bytes
/// per second; TFLOP/s without sparsity; a link one way.
struct Device {
  std::string name;
  std::string description;
  bool gpu = false;
  int64_t memory_bytes = 0;  ///< gpu: of one device; cpu: of one node
  int64_t per_node = 1;      ///< gpu: devices of a node; cpu: cores
  double fp32 = 0;           ///< a device; 0: not known
  double tf32 = 0;
  double bf16 = 0;
  double memory_bandwidth = 0;
  std::string link;              ///< inside a node
  double link_bandwidth = 0;     ///< of one rank
  double link_latency_s = 0;     ///< of one message
  std::string network;           ///< between nodes
  double network_bandwidth = 0;  ///< of one node
  double network_latency_s = 0;
  double message_overhead_s = 0;  ///< between two messages of one collective, either way
  std::string source;             ///< of the figures
};

/// Every device `plan --device` knows, `cpu` first.
std::vector<std::string> device_names();

/// The device of that name; `cpu` has the memory and the cores of this machine.
/// Throws: UserError with the known names.
Device find_device(std::string_view name);

}  // namespace kt
