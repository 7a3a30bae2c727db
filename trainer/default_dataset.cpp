#include "trainer/default_dataset.h"

#include <filesystem>

#include "io/import.h"
#include "io/synth.h"
#include "launch/agree.h"
#include "launch/log.h"
#include "sharding/assignment.h"

namespace kt {
namespace {

constexpr double kScale = .05;
constexpr const char* kSource = "kuaitrain-data/synthetic-0.05-csv";
constexpr const char* kDataset = "kuaitrain-data/synthetic-0.05";

}  // namespace

std::string default_dataset(MpiCommunicator& comm) {
  solo(comm, 0, "default data set", [] {
    if (!std::filesystem::exists(kDataset)) {
      log_info("no data.path given: making a small synthetic data set in ./{}", kDataset);
      if (!std::filesystem::exists(kSource)) synthesize({.out = kSource, .scale = kScale});
      import_dataset({.source = kSource, .out = kDataset, .assign_users = assign_users_to_shards});
    }
    log_info(
        "data: ./{}, a synthetic replica: its figures are not KuaiRec's. For your own data: "
        "kuaitrain import SRC --out DATASET, then data.path=DATASET",
        kDataset);
  });
  return kDataset;
}

}  // namespace kt
