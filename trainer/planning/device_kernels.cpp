#include "trainer/planning/device_kernels.h"

#include <algorithm>

namespace kt {
namespace {

constexpr double kFloat = sizeof(float);
constexpr double kSample = 16;  // bytes: user, item, target, key
constexpr double kPlace = 4;    // where a sorted row is

// Operations a second that kernels attained on an H200: those of a prototype of this step, each timed by itself at 65,536
// rows, its operations counted as here. Source: docs/plan.md, "Measured constants".
constexpr double kParts = 4.34e12;
constexpr double kRows = 1.09e12;
constexpr double kLeafGradients = 2.20e12;
constexpr double kSums = 33.8e9;
constexpr double kIdsBackward = 4.50e12;
constexpr double kIdGradients = 1.51e12;
constexpr double kTree = 59.2e9;
constexpr double kUpdate = 1.96e12;
constexpr double kPeakThere = 67e12;
constexpr double kNone = 1;  // of kernels without operations

// From the end of a kernel to the first work of the one after it, in a graph; a row of an epoch that is made ready.
// Source: likewise.
constexpr double kLaunch_s = 5e-6;
constexpr double kEpochRow_s = 106e-12;
constexpr double kBandwidthThere = 4.8e12;

// Assumed of every device: what of the bandwidth of a data sheet is had.
constexpr double kBandwidthShare = .7;

class Kernels {
 public:
  explicit Kernels(const Device& device) : device_(device) {}

  /// `beside`: on a second branch, so that nothing waits for its launch.
  void add(const char* name, double rate, double operations, double bytes, bool beside = false) {
    const double arithmetic = operations / (rate * device_.fp32 / kPeakThere);
    const double memory = bytes / (kBandwidthShare * device_.memory_bandwidth);
    all.push_back(
        {name, operations, bytes, 1, (beside ? 0 : kLaunch_s) + std::max(arithmetic, memory)});
  }
  std::vector<DeviceKernel> all;

 private:
  const Device& device_;
};

}  // namespace

std::vector<DeviceKernel> device_kernels(const DeviceStepCounts& c, const Device& device) {
  const auto& [user, item, row, packed] = c.arithmetic;
  const auto both = [&](auto&& of) { return of(c.users, user) + of(c.items, item); };
  using Ids = DeviceStepCounts::Ids;
  using fused::Work;
  const double parts = c.users.part + c.items.part;

  Kernels kernels(device);
  kernels.add("pack weights", kNone, 0, kFloat * (c.dense + packed));
  kernels.add("parts of users and items", kParts,
              both([](const Ids& ids, const Work& w) { return ids.count * w.forward; }),
              kFloat * both([](const Ids& ids, const Work& w) {
                return ids.count * (ids.inputs + w.inputs + ids.part);
              }));
  if (c.exchanges)
    kernels.add("parts to send", kNone, 0, c.rows * (kPlace + 2 * kFloat * c.items.part));
  kernels.add("rows", kRows, c.rows * (row.forward + row.backward),
              c.rows * (kSample + kFloat * (2 * parts + row.inputs + row.slopes)));
  kernels.add("leaf gradients", kLeafGradients, c.rows * row.gradients,
              kFloat * (c.rows * (row.inputs + row.slopes) + c.leaves * row.weights), true);
  kernels.add("sums of part gradients", kSums, c.rows * parts,
              c.rows * (2 * kPlace + kFloat * parts) +
                  kFloat * (c.users.count * c.users.part + c.items.count * c.items.part));
  kernels.add("ids, backward", kIdsBackward,
              both([](const Ids& ids, const Work& w) { return ids.count * w.backward; }),
              kFloat * both([](const Ids& ids, const Work& w) {
                return ids.count * (ids.part + w.inputs + w.slopes + ids.trained);
              }));
  kernels.add("leaf gradients of ids", kIdGradients,
              both([](const Ids& ids, const Work& w) { return ids.count * w.gradients; }),
              kFloat * both([&](const Ids& ids, const Work& w) {
                return ids.count * (w.inputs + w.slopes) + c.leaves * w.weights;
              }));
  if (c.exchanges) kernels.add("subtrees to send", kNone, 0, 2 * kFloat * c.leaves * c.dense);
  kernels.add("tree", kTree, c.leaves * c.dense, kFloat * (c.leaves + 1) * c.dense);
  kernels.add("norms", kUpdate, 2 * c.updated, kFloat * c.updated);
  kernels.add("judge", kNone, 0, 0);
  kernels.add("update", kUpdate, c.updated * c.update_operations,
              kFloat * c.updated * (3 + 2 * c.slots));
  if (c.exchanges) kernels.add("dense weights received", kNone, 0, 2 * kFloat * c.dense);
  return kernels.all;
}

double device_epoch_seconds(double rows, const Device& device) {
  return rows * kEpochRow_s * kBandwidthThere / device.memory_bandwidth;
}

}  // namespace kt
