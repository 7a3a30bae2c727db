#include "tests/fuzz/target.h"
#include "trainer/evaluation/score_files.h"

namespace kt {
namespace {

void run(std::string_view text) {
  static const IdTables ids = {.user_id = {"1", "2", "10", "a,b", "say \"x\"", "two\nlines"},
                               .item_id = {"1", "3", "12", " ", "-1", "\xe7\x94\xb5"},
                               .user_rows = {},
                               .item_rows = {},
                               .user_shard = {}};
  const auto path = fuzz::write("pairs.csv", text);
  TestTable table;
  if (!fuzz::accepted([&] { table = read_pairs(path, ids); })) return;
  KT_CHECK(table.offsets.size() == table.users.size() + 1);
  KT_CHECK(table.offsets.back() == static_cast<int64_t>(table.item.size()));
  // A table of scores is a table of pairs.
  const auto scores_path = fuzz::folder() / "scores.csv";
  const std::vector<float> scores(table.item.size(), 0.5F);
  write_scores(scores_path, table, scores, ids);
  const TestTable again = read_pairs(scores_path, ids);
  KT_CHECK(again.users == table.users && again.item == table.item && again.label == table.label);
}

}  // namespace
}  // namespace kt

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kt::run({reinterpret_cast<const char*>(data), size});
  return 0;
}
