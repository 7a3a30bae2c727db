#include "io/tables/side_tables.h"

#include <array>

#include "tests/fuzz/target.h"

namespace kt {
namespace {

constexpr std::array kNames = {"user_features.csv", "item_categories.csv",
                               "kuairec_caption_category.csv", "item_daily_features.csv",
                               "social_network.csv"};

/// The first byte says which table the rest is, and whether malformed rows are skipped.
void run(std::span<const uint8_t> input) {
  const auto source = fuzz::folder() / "source", out = fuzz::folder() / "out";
  std::filesystem::create_directory(source);
  std::filesystem::create_directory(out);
  const size_t which = (input[0] >> 1) % kNames.size();
  const OnFault on_fault = (input[0] & 1) != 0 ? OnFault::kSkip : OnFault::kStop;
  const std::string_view text(reinterpret_cast<const char*>(input.data()) + 1, input.size() - 1);
  const auto path = fuzz::write(std::string("source/") + kNames[which], text);
  fuzz::accepted([&] {
    const SideSources sources = find_side_sources(source);
    const SideIds ids = read_side_ids(sources, on_fault);
    const auto index_of = [](const std::vector<int64_t>& numbers) {
      std::vector<std::string> texts;
      for (const int64_t number : numbers) texts.push_back(std::to_string(number));
      return IdIndex(std::move(texts));
    };
    const SideFiles files =
        write_side_tables(sources, ids, index_of(ids.users), index_of(ids.items), out, on_fault);
    KT_CHECK(files.tables.size() == 1);
    KT_CHECK(files.tables[0].rows <= files.tables[0].rows_read);
  });
  std::filesystem::remove(path);
  for (const auto& entry : std::filesystem::directory_iterator(out))
    std::filesystem::remove(entry.path());
}

}  // namespace
}  // namespace kt

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 0) kt::run({data, size});
  return 0;
}
