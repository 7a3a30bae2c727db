#include "io/tables/csv.h"

#include <array>
#include <span>

#include "io/dataset/import.h"
#include "io/tables/interactions.h"
#include "tests/fuzz/target.h"

namespace kt {
namespace {

const InteractionColumns kOfficial = {.user = "user_id",
                                      .item = "video_id",
                                      .label = "watch_ratio",
                                      .play_duration = "play_duration",
                                      .video_duration = "video_duration",
                                      .time = "time",
                                      .date = "date",
                                      .timestamp = "timestamp",
                                      .official = true};
const InteractionColumns kMapped = {.user = "user",
                                    .item = "item",
                                    .label = "label",
                                    .timestamp = "time",
                                    .timestamp_optional = true};

template <class Label>
void read(const std::filesystem::path& path, const Dialect& dialect, bool official,
          OnFault on_fault, ThreadPool& pool) {
  static const std::vector<int64_t> known = {0, 1, 2, 7, 10, 11, 12, 2147483647};
  const IdRule rule{official, official ? &known : nullptr, "the side table"};
  auto table = read_interactions<Label>(path, dialect, official ? kOfficial : kMapped, rule, rule,
                                        on_fault, pool);
  int64_t faulty = 0;
  for (const int64_t count : table.faults) faulty += count;
  KT_CHECK(table.rows + faulty == table.rows_read, "{} + {} of {}", table.rows, faulty,
           table.rows_read);
  std::vector<std::string> users, items;
  for (const IdDictionary& ids : table.users)
    users.insert(users.end(), ids.ids().begin(), ids.ids().end());
  for (const IdDictionary& ids : table.items)
    items.insert(items.end(), ids.ids().begin(), ids.ids().end());
  const IdIndex user_index(std::move(users)), item_index(std::move(items));
  table.index(user_index, item_index, pool);
  for (const auto& block : table.blocks)
    for (const auto& row : block.rows) {
      KT_CHECK(row.user >= 0 && row.user < user_index.size());
      KT_CHECK(row.item >= 0 && row.item < item_index.size());
      KT_CHECK(row.label - row.label == 0, "a label that is not finite");
    }
}

/// The first byte says how the rest is read.
void run(std::span<const uint8_t> input) {
  static ThreadPool pool(1);
  const uint8_t how = input[0];
  Dialect dialect;
  dialect.delimiter = std::array{",", "\t", ";", "::"}[how >> 2 & 3];
  if ((how & 16) != 0) dialect.quotes = Quotes::kNone;
  if ((how & 32) != 0) dialect.header = Header::kNone;
  const OnFault on_fault = (how & 1) != 0 ? OnFault::kSkip : OnFault::kStop;
  const bool official = (how & 2) != 0;
  const std::string_view text(reinterpret_cast<const char*>(input.data()) + 1, input.size() - 1);
  const auto path = fuzz::write("table.csv", text);
  fuzz::accepted([&] { read<float>(path, dialect, official, on_fault, pool); });
  fuzz::accepted([&] { read<double>(path, dialect, official, on_fault, pool); });
  fuzz::accepted([&] {
    CsvTable table(path, dialect);
    std::vector<std::string_view> fields;
    for (int64_t record = 0; record < table.records(); ++record) {
      if (table.cut(record, fields) != Cut::kDone) continue;
      KT_CHECK(!fields.empty());
      for (const std::string_view field : fields) {
        (void)parse_integer(field);
        (void)parse_number(field);
        (void)parse_date(field);
        (void)parse_time(field);
        fuzz::check_message(shown(field));
      }
    }
  });
}

}  // namespace
}  // namespace kt

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 0) kt::run({data, size});
  return 0;
}
