#include "trainer/run/default_dataset.h"

#include <filesystem>
#include <functional>

#include "io/dataset/import.h"
#include "io/synth/synth.h"
#include "launch/base/errors.h"
#include "launch/base/log.h"
#include "launch/collectives/agree.h"
#include "sharding/assignment.h"

namespace kt {
namespace {

constexpr double kScale = .05;
constexpr const char* kSource = "kuaitrain-data/synthetic-0.05-csv";
constexpr const char* kDataset = "kuaitrain-data/synthetic-0.05";

/// Lets `make` make a folder that is not there yet. Another process may be making it too: who comes second takes
/// what is there by then, which is whole (io/files/files.h).
void make_if_absent(const std::filesystem::path& path, const std::function<void()>& make) {
  if (std::filesystem::exists(path)) return;
  try {
    make();
  } catch (const UserError&) {
    if (!std::filesystem::exists(path)) throw;
  }
}

}  // namespace

std::string default_dataset(MpiCommunicator& comm) {
  solo(comm, 0, "default data set", [] {
    if (!std::filesystem::exists(kDataset)) {
      log_info("no data.path given: making a small synthetic data set in ./{}", kDataset);
      make_if_absent(kSource, [] { synthesize({.out = kSource, .scale = kScale}); });
      make_if_absent(kDataset, [] {
        import_dataset(
            {.source = kSource, .out = kDataset, .assign_users = assign_users_to_shards});
      });
    }
    log_info(
        "data: ./{}, a synthetic replica: its figures are not KuaiRec's. For your own data: "
        "kuaitrain import SRC --out DATASET, then data.path=DATASET",
        kDataset);
  });
  return kDataset;
}

}  // namespace kt
