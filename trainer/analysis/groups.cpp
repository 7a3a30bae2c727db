#include "trainer/analysis/groups.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "io/dataset/side_columns.h"
#include "io/files/json_text.h"

namespace kt {
namespace {

using nlohmann::json;

json absent(const std::string& table) { return {{"absent", "the source had no " + table}}; }

struct Group {
  int64_t members = 0, rows = 0;
  double sum = 0;
  void add(int64_t its_rows, double its_sum) {
    ++members;
    rows += its_rows;
    sum += its_sum;
  }
  double mean() const { return rows > 0 ? sum / static_cast<double>(rows) : NAN; }
};

/// Most members first, of equally many the lesser key.
template <class Key>
json by_members(const std::map<Key, Group>& groups, const char* key_name, const char* members) {
  std::vector<const std::pair<const Key, Group>*> order;
  for (const auto& group : groups) order.push_back(&group);
  std::ranges::stable_sort(order, std::greater<>(),
                           [](const auto* group) { return group->second.members; });
  json list = json::array();
  for (const auto* group : order)
    list.push_back({{key_name, group->first},
                    {members, group->second.members},
                    {"rows", group->second.rows},
                    {"mean", finite_or_null(group->second.mean())}});
  return list;
}

}  // namespace

json tags_of(const Dataset& dataset, const RowNumbers& training) {
  if (!dataset.has_table("item_categories.csv")) return absent("item_categories.csv");
  const CodeLists tags = dataset.read_tags();
  std::map<int32_t, Group> groups;
  for (int64_t item = 0; item < dataset.items(); ++item)
    for (int64_t k = tags.offsets[item]; k < tags.offsets[item + 1]; ++k)
      groups[tags.code[k]].add(training.item_rows[item], training.item_sum[item]);
  return {{"tags", std::ssize(tags.code)}, {"by_tag", by_members(groups, "tag", "videos")}};
}

json categories_of(const Dataset& dataset, const RowNumbers& training) {
  constexpr const char* kTable = "kuairec_caption_category.csv";
  if (!dataset.has_table(kTable)) return absent(kTable);
  const SideColumn names = read_side_column(dataset, kTable, "first_level_category_name");
  const std::vector<int32_t> items = read_side_ids(dataset, kTable);
  std::map<std::string, Group> groups;
  for (size_t k = 0; k < items.size(); ++k)
    groups[names.texts[names.codes[k]]].add(training.item_rows[items[k]],
                                            training.item_sum[items[k]]);
  return {{"by_category", by_members(groups, "category", "videos")}};
}

json user_columns_of(const Dataset& dataset, const RowNumbers& training) {
  constexpr const char* kTable = "user_features.csv";
  if (!dataset.has_table(kTable)) return absent(kTable);
  const std::vector<int32_t> user = read_side_ids(dataset, kTable);
  json columns = json::object();
  for (const char* column : {"user_active_degree", "is_lowactive_period", "is_live_streamer",
                             "is_video_author", "follow_user_num_range", "fans_user_num_range",
                             "friend_user_num_range", "register_days_range"}) {
    const SideColumn cells = read_side_column(dataset, kTable, column);
    std::map<std::string, Group> groups;
    for (size_t k = 0; k < user.size(); ++k) {
      const std::string value = cells.numbers.empty() ? cells.texts[cells.codes[k]]
                                : std::isnan(cells.numbers[k])
                                    ? std::string()
                                    : std::to_string(static_cast<int64_t>(cells.numbers[k]));
      groups[value].add(training.user_rows[user[k]], training.user_sum[user[k]]);
    }
    columns[column] = by_members(groups, "value", "users");
  }
  return columns;
}

json friends_of(const Dataset& dataset) {
  if (!dataset.has_table("social_network.csv")) return absent("social_network.csv");
  const CodeLists friends = dataset.read_friends();
  std::vector<double> counts;
  int64_t returned = 0;
  const auto of = [&](int64_t user) {
    return std::span(friends.code)
        .subspan(friends.offsets[user], friends.offsets[user + 1] - friends.offsets[user]);
  };
  for (int64_t user = 0; user < dataset.users(); ++user) {
    if (of(user).empty()) continue;
    counts.push_back(static_cast<double>(of(user).size()));
    for (const int32_t other : of(user))
      returned += std::ranges::find(of(other), user) != of(other).end();
  }
  const int64_t all = std::ssize(friends.code);
  return {{"users_with_friends", std::ssize(counts)},
          {"friendships", all},
          {"returned", returned},
          {"share_returned", share(returned, all)},
          {"friends", describe(std::move(counts))}};
}

}  // namespace kt
