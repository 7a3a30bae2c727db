#include "io/run/checkpoint.h"

#include "tests/fuzz/target.h"
#include "trainer/run/progress_state.h"

namespace kt {
namespace {

/// A part with rows 0-1 of `a`, 2 columns, and all of `b`, 3 rows of 1.
const PartFile& part() {
  static const PartFile part = [] {
    const std::vector<float> a = {1, 2, 3, 4}, b = {5, 6, 7};
    const std::vector<ArrayPart> arrays = {{"a", 2, 2, 0, 2, a}, {"b", 3, 1, 0, 3, b}};
    return write_checkpoint_part(fuzz::folder(), 0, arrays);
  }();
  return part;
}

void open_and_read(Verify verify) {
  Checkpoint checkpoint = Checkpoint::open(fuzz::folder(), verify);
  for (const auto& array : checkpoint.arrays()) {
    const Checkpoint::Shape shape = array.second;
    if (shape.rows > 100 || shape.cols > 100) continue;
    std::vector<float> values(static_cast<size_t>(shape.rows * shape.cols));
    fuzz::accepted([&] { checkpoint.read_rows(array.first, 0, shape.rows, values); });
  }
  fuzz::accepted([&] {
    if (!checkpoint.state().is_object() || !checkpoint.state().contains("progress")) return;
    const ProgressState progress = progress_from_json(checkpoint.state().at("progress"));
    (void)to_json(progress).dump();
  });
}

void run(std::string_view text) {
  const nlohmann::json parts = {part()};
  const auto path = fuzz::write("manifest.json", text);
  fuzz::accepted([] { open_and_read(Verify::kEverything); });
  // A checksum that fits lets all the rest through; so does the real part.
  nlohmann::json content = nlohmann::json::parse(text, nullptr, false);
  if (content.is_discarded()) return;
  if (content.is_object() && content.contains("parts") && content["parts"] == "real")
    content["parts"] = parts;
  const std::string dumped = content.dump();
  const std::string sum = checksum(std::as_bytes(std::span(dumped)));
  fuzz::write("manifest.json", nlohmann::json{{"content", content}, {"xxh128", sum}}.dump());
  if (fuzz::accepted([] { open_and_read(Verify::kManifest); }))
    KT_CHECK(Checkpoint::open(fuzz::folder(), Verify::kManifest).step() == content.at("step"),
             "not the step of the manifest");
  fuzz::accepted([] { describe_checkpoint(fuzz::folder()); });
}

}  // namespace
}  // namespace kt

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kt::run({reinterpret_cast<const char*>(data), size});
  return 0;
}
