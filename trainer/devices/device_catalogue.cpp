#include "trainer/devices/device_catalogue.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

#include "launch/base/errors.h"
#include "launch/process/cpus.h"

namespace kt {
namespace {

constexpr double kTera = 1e12;
constexpr double kGiga = 1e9;

// No data sheet gives the latency of a message; these are of the order that NCCL and Open MPI show.
constexpr double kNvlinkLatency = 5e-6;
constexpr double kPcieLatency = 8e-6;
constexpr double kGpuNetworkLatency = 12e-6;
constexpr double kGpuMessageOverhead = 1e-6;

struct Gpu {
  const char* name;
  const char* description;
  int64_t memory_gb;
  double fp32, tf32, bf16;  // TFLOP/s, dense
  double memory_gb_s;
  const char* link;
  double link_gb_s;  // one way: half of what a data sheet adds up
  double link_latency_s;
  const char* network;
  double network_gb_s;  // of a node
  const char* source;
};

constexpr Gpu kGpus[] = {
    {"a100", "NVIDIA A100 80 GB SXM", 80, 19.5, 156, 312, 2039, "NVLink 3", 300, kNvlinkLatency,
     "8 x HDR 200 Gb/s", 200,
     "NVIDIA A100 Tensor Core GPU data sheet; network: NVIDIA DGX A100 data sheet"},
    {"a100-40gb", "NVIDIA A100 40 GB SXM", 40, 19.5, 156, 312, 1555, "NVLink 3", 300,
     kNvlinkLatency, "8 x HDR 200 Gb/s", 200,
     "NVIDIA A100 Tensor Core GPU data sheet; network: NVIDIA DGX A100 data sheet"},
    {"h100", "NVIDIA H100 80 GB SXM", 80, 67, 494.5, 989.5, 3350, "NVLink 4", 450, kNvlinkLatency,
     "8 x NDR 400 Gb/s", 400,
     "NVIDIA H100 Tensor Core GPU data sheet (its TF32 and BF16 are with sparsity, halved here); "
     "network: NVIDIA DGX H100 data sheet"},
    {"h200", "NVIDIA H200 141 GB SXM", 141, 67, 494.5, 989.5, 4800, "NVLink 4", 450, kNvlinkLatency,
     "8 x NDR 400 Gb/s", 400,
     "NVIDIA H200 Tensor Core GPU data sheet (its TF32 and BF16 are with sparsity, halved here); "
     "network: NVIDIA DGX H200 data sheet"},
    {"b200", "NVIDIA B200 180 GB SXM", 180, 80, 1100, 2250, 8000, "NVLink 5", 900, kNvlinkLatency,
     "8 x NDR 400 Gb/s", 400,
     "NVIDIA Blackwell architecture technical brief (HGX B200); memory and network: NVIDIA DGX "
     "B200 data sheet, an eighth of a system"},
    {"l4", "NVIDIA L4 24 GB PCIe", 24, 30.3, 60, 121, 300, "PCIe 4 x16", 32, kPcieLatency,
     "100 Gb/s (assumed)", 12.5,
     "NVIDIA L4 Tensor Core GPU data sheet (its TF32 and BF16 are with sparsity, halved here); "
     "network assumed"},
    {"l40s", "NVIDIA L40S 48 GB PCIe", 48, 91.6, 183, 362, 864, "PCIe 4 x16", 32, kPcieLatency,
     "200 Gb/s (assumed)", 25, "NVIDIA L40S data sheet (dense figures); network assumed"},
};

constexpr const char* kCpu = "cpu";

Device this_machine() {
  return {.name = kCpu,
          .description = "a node like this machine",
          .memory_bytes = sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGE_SIZE),
          .per_node = usable_cpus(),
          .link = "shared memory",
          .link_bandwidth = 4 * kGiga,
          .link_latency_s = 2e-6,
          .network = "100 Gb/s (assumed)",
          .network_bandwidth = 12.5 * kGiga,
          .network_latency_s = 5e-6,
          .message_overhead_s = .5e-6,
          .source =
              "memory and cores: this machine; costs of a step: measured, see docs/plan.md; "
              "links assumed"};
}

Device device_of(const Gpu& gpu) {
  return {.name = gpu.name,
          .description = gpu.description,
          .gpu = true,
          .memory_bytes = gpu.memory_gb * 1'000'000'000,
          .per_node = 8,
          .fp32 = gpu.fp32 * kTera,
          .tf32 = gpu.tf32 * kTera,
          .bf16 = gpu.bf16 * kTera,
          .memory_bandwidth = gpu.memory_gb_s * kGiga,
          .link = gpu.link,
          .link_bandwidth = gpu.link_gb_s * kGiga,
          .link_latency_s = gpu.link_latency_s,
          .network = gpu.network,
          .network_bandwidth = gpu.network_gb_s * kGiga,
          .network_latency_s = kGpuNetworkLatency,
          .message_overhead_s = kGpuMessageOverhead,
          .source = gpu.source};
}

}  // namespace

std::vector<std::string> device_names() {
  std::vector<std::string> names{kCpu};
  for (const Gpu& gpu : kGpus) names.emplace_back(gpu.name);
  return names;
}

Device find_device(std::string_view name) {
  if (name == kCpu) return this_machine();
  const auto* found = std::find_if(std::begin(kGpus), std::end(kGpus),
                                   [&](const Gpu& g) { return g.name == name; });
  if (found == std::end(kGpus))
    user_error("--device {}: no such device, expected {}", name, fmt::join(device_names(), ", "));
  return device_of(*found);
}

}  // namespace kt
