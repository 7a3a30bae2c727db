#include "trainer/analysis/analysis.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "trainer/analysis/engagement.h"
#include "trainer/analysis/groups.h"
#include "trainer/analysis/interactions.h"
#include "trainer/analysis/kuairec_figures.h"
#include "trainer/analysis/row_numbers.h"
#include "trainer/analysis/tables.h"
#include "trainer/analysis/users_and_videos.h"

namespace kt {
namespace {

using nlohmann::json;

constexpr int kKuaiRecOffset_s = 8 * 3600;  // its times are of UTC+8

std::vector<bool> with_rows(const std::vector<int64_t>& rows) {
  std::vector<bool> has(rows.size());
  for (size_t k = 0; k < rows.size(); ++k) has[k] = rows[k] > 0;
  return has;
}

json facts_of(const Dataset& dataset) {
  const json& manifest = dataset.manifest();
  return {
      {"path", dataset.path().string()},  {"hash", dataset.hash()},
      {"kind", manifest.at("kind")},      {"label", manifest.at("label")},
      {"synthetic", dataset.synthetic()}, {"users", dataset.users()},
      {"videos", dataset.items()},        {"training_rows", dataset.train_rows()},
      {"test_rows", dataset.test_rows()}, {"time_zone", dataset.has_durations() ? "UTC+8" : "UTC"},
      {"dropped", dropped_rows(dataset)}};
}

json all_of(const RowNumbers& rows, const IdTables& ids, const ItemTexts& texts) {
  json out = interactions_of(rows);
  out["by_user"] = users_of(rows, ids.user_id);
  out["by_video"] = videos_of(rows, ids.item_id, texts);
  return out;
}

}  // namespace

json analyze(const Dataset& dataset, ThreadPool& pool) {
  RowView view{.users = dataset.users(),
               .items = dataset.items(),
               .utc_offset_s = dataset.has_durations() ? kKuaiRecOffset_s : 0,
               .ratios = dataset.has_durations()};
  std::optional<RowNumbers> test;
  if (const auto table = test_rows(dataset)) {
    test = look_through(*table, view, pool);
    view.block_users = with_rows(test->user_rows);
    view.block_items = with_rows(test->item_rows);
  }
  const RowNumbers training = look_through(training_rows(dataset), view, pool);

  const IdTables ids = dataset.read_ids();
  const ItemTexts texts = dataset.read_item_texts();
  const json no_test = {{"absent", "the data set has no test table"}};
  json out = {{"dataset", facts_of(dataset)},
              {"tables", side_tables_of(dataset, ids, pool)},
              {"training", all_of(training, ids, texts)},
              {"test", test ? all_of(*test, ids, texts) : no_test},
              {"block", test ? block_of(training, *test) : no_test},
              {"engagement", engagement_of(dataset, training, pool)},
              {"tags", tags_of(dataset, training)},
              {"categories", categories_of(dataset, training)},
              {"user_columns", user_columns_of(dataset, training)},
              {"friends", friends_of(dataset)}};
  out["tables"]["training"] = row_table_of(dataset, training, ids);
  out["tables"]["test"] = test ? row_table_of(dataset, *test, ids) : no_test;
  out["replica"] = beside_kuairec(dataset, out);
  return out;
}

}  // namespace kt
