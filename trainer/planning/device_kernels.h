#pragma once

#include <cstdint>
#include <vector>

#include "models/fused/arithmetic.h"
#include "trainer/devices/device_catalogue.h"

/// The fused engine's step on a device as a list of kernels: what each does and how long it takes. docs/plan.md has
/// the formulas, docs/gpu-training.md the counts of `ncf`.
namespace kt {

/// A step of one rank.
struct DeviceStepCounts {
  struct Ids {
    double count = 0;    ///< distinct ones: users in a leaf, items in the step
    double inputs = 0;   ///< floats of an id's table rows and columns
    double trained = 0;  ///< floats of its table rows alone
    double part = 0;     ///< floats of its part
  };
  fused::Arithmetic arithmetic;
  double rows = 0;
  Ids users, items;
  double leaves = 0;
  double dense = 0;              ///< elements of all dense arrays
  double updated = 0;            ///< elements that the rank updates
  int slots = 0;                 ///< state arrays of the optimizer
  double update_operations = 0;  ///< an element
  bool exchanges = false;        ///< exact form on several ranks
};

struct DeviceKernel {
  const char* name;
  double operations = 0;  ///< of floating point
  double bytes = 0;       ///< of device memory, read and written; what a team reads again left out
  int64_t launches = 1;
  double seconds = 0;
};

/// In order; all of one graph.
std::vector<DeviceKernel> device_kernels(const DeviceStepCounts& counts, const Device& device);

/// What comes before the first step of an epoch: samples in the order of steps, two stable sorts, runs of ids.
/// Units: seconds.
double device_epoch_seconds(double rows, const Device& device);

}  // namespace kt
