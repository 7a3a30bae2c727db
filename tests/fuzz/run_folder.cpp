#include "io/run/run_folder.h"

#include <nlohmann/json.hpp>

#include "io/config/identity.h"
#include "tests/fuzz/target.h"

namespace kt {
namespace {

/// Parts: identity.json, result.json, metrics.jsonl; an empty one is absent.
void run(const std::vector<std::string>& parts) {
  const auto path = fuzz::folder() / "run";
  std::filesystem::create_directory(path);
  const char* const names[] = {"identity.json", "result.json", "metrics.jsonl"};
  for (size_t k = 0; k < 3; ++k)
    if (!parts[k].empty()) fuzz::write(std::string("run/") + names[k], parts[k]);
  {
    RunFolder folder(path);
    fuzz::accepted([&] { folder.claim({}, identity({}, "hash")); });
    fuzz::accepted([&] { read_identity(path); });
    fuzz::accepted([&] { read_result(folder.path()); });
    fuzz::accepted([&] {
      folder.cut_metrics_at(100);
      folder.append_metrics({{"step", 101}});
      KT_CHECK(folder.cut_metrics_at(101) == 0, "lines that are cut once stay away");
      KT_CHECK(folder.cut_metrics_at(100) == 1, "the line that was added");
    });
  }
  for (const auto& entry : std::filesystem::directory_iterator(path))
    std::filesystem::remove_all(entry.path());
}

}  // namespace
}  // namespace kt

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kt::run(kt::fuzz::parts(data, size, 3));
  return 0;
}
