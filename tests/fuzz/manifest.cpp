#include "io/dataset/dataset.h"
#include "tests/fuzz/target.h"

namespace kt {
namespace {

/// The manifest of a data set whose files are away: all that is read of it without them.
void open_and_look() {
  const Dataset dataset = Dataset::open(fuzz::folder());
  (void)dataset.hash();
  (void)dataset.synthetic();
  (void)dataset.train_label_mean();
  (void)dataset.has_daily();
  KT_CHECK(dataset.users() >= 0 && dataset.items() >= 0);
  KT_CHECK(dataset.train_rows() >= 0 && dataset.test_rows() >= 0);
  KT_CHECK(static_cast<int64_t>(dataset.shard_rows().size()) == dataset.shards());
  fuzz::accepted([&] { dataset.read_ids(); });
  fuzz::accepted([&] { dataset.read_test(); });
  fuzz::accepted([&] { dataset.read_daily({"show_cnt"}); });
  fuzz::accepted([&] { dataset.read_item_texts(); });
  fuzz::accepted([&] { dataset.read_user_columns({"register_days"}); });
  fuzz::accepted([&] { dataset.read_tags(); });
  if (dataset.shards() > 0) fuzz::accepted([&] { dataset.read_timestamps(0); });
  fuzz::accepted([&] { describe_dataset(fuzz::folder()); });
}

void run(std::string_view text) {
  const auto path = fuzz::write("manifest.json", text);
  fuzz::accepted(open_and_look);
  // A seal that fits lets all the rest through.
  const auto manifest = nlohmann::json::parse(text, nullptr, false);
  if (!manifest.is_object()) return;
  std::filesystem::remove(path);
  write_sealed_manifest(path, manifest);
  fuzz::accepted(open_and_look);
}

}  // namespace
}  // namespace kt

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kt::run({reinterpret_cast<const char*>(data), size});
  return 0;
}
