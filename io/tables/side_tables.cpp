#include "io/tables/side_tables.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "io/tables/csv.h"
#include "launch/base/errors.h"
#include "launch/base/text.h"
#include "launch/process/watchdog.h"

namespace kt {
namespace {

constexpr int64_t kRecordsPerHeartbeat = 10'000;

const std::vector<std::string> kUserColumns = {"user_id",
                                               "user_active_degree",
                                               "is_lowactive_period",
                                               "is_live_streamer",
                                               "is_video_author",
                                               "follow_user_num",
                                               "follow_user_num_range",
                                               "fans_user_num",
                                               "fans_user_num_range",
                                               "friend_user_num",
                                               "friend_user_num_range",
                                               "register_days",
                                               "register_days_range",
                                               "onehot_feat0",
                                               "onehot_feat1",
                                               "onehot_feat2",
                                               "onehot_feat3",
                                               "onehot_feat4",
                                               "onehot_feat5",
                                               "onehot_feat6",
                                               "onehot_feat7",
                                               "onehot_feat8",
                                               "onehot_feat9",
                                               "onehot_feat10",
                                               "onehot_feat11",
                                               "onehot_feat12",
                                               "onehot_feat13",
                                               "onehot_feat14",
                                               "onehot_feat15",
                                               "onehot_feat16",
                                               "onehot_feat17"};

const std::vector<std::string> kCategoryColumns = {"video_id", "feat"};

const std::vector<std::string> kCaptionColumns = {"video_id",
                                                  "manual_cover_text",
                                                  "caption",
                                                  "topic_tag",
                                                  "first_level_category_id",
                                                  "first_level_category_name",
                                                  "second_level_category_id",
                                                  "second_level_category_name",
                                                  "third_level_category_id",
                                                  "third_level_category_name"};

const std::vector<std::string> kSocialColumns = {"user_id", "friend_list"};

const std::vector<std::string> kDailyColumns = {"video_id",
                                                "date",
                                                "author_id",
                                                "video_type",
                                                "upload_dt",
                                                "upload_type",
                                                "visible_status",
                                                "video_duration",
                                                "video_width",
                                                "video_height",
                                                "music_id",
                                                "video_tag_id",
                                                "video_tag_name",
                                                "show_cnt",
                                                "show_user_num",
                                                "play_cnt",
                                                "play_user_num",
                                                "play_duration",
                                                "complete_play_cnt",
                                                "complete_play_user_num",
                                                "valid_play_cnt",
                                                "valid_play_user_num",
                                                "long_time_play_cnt",
                                                "long_time_play_user_num",
                                                "short_time_play_cnt",
                                                "short_time_play_user_num",
                                                "play_progress",
                                                "comment_stay_duration",
                                                "like_cnt",
                                                "like_user_num",
                                                "click_like_cnt",
                                                "double_click_cnt",
                                                "cancel_like_cnt",
                                                "cancel_like_user_num",
                                                "comment_cnt",
                                                "comment_user_num",
                                                "direct_comment_cnt",
                                                "reply_comment_cnt",
                                                "delete_comment_cnt",
                                                "delete_comment_user_num",
                                                "comment_like_cnt",
                                                "comment_like_user_num",
                                                "follow_cnt",
                                                "follow_user_num",
                                                "cancel_follow_cnt",
                                                "cancel_follow_user_num",
                                                "share_cnt",
                                                "share_user_num",
                                                "download_cnt",
                                                "download_user_num",
                                                "report_cnt",
                                                "report_user_num",
                                                "reduce_similar_cnt",
                                                "reduce_similar_user_num",
                                                "collect_cnt",
                                                "collect_user_num",
                                                "cancel_collect_cnt",
                                                "cancel_collect_user_num"};

const std::set<std::string> kTextColumns = {"user_active_degree",  "follow_user_num_range",
                                            "fans_user_num_range", "friend_user_num_range",
                                            "register_days_range", "video_type",
                                            "upload_dt",           "upload_type",
                                            "visible_status",      "video_tag_name"};

size_t at(int32_t index) { return static_cast<size_t>(index); }

/// Goes through the records of a side table.
class Records {
 public:
  Records(const std::filesystem::path& path, const std::vector<std::string>& columns,
          OnFault on_fault)
      : table_(path, ','),
        places_(find_columns(path, table_.header(), columns, true)),
        columns_(columns),
        log_(path, on_fault) {
    if (table_.records() == 0)
      user_error(
          "{}: has a header but no rows, expected at least one; give a complete file, or "
          "remove it",
          path.string());
  }

  /// The next record that can be cut, its fields in the order of the columns asked for.
  bool next(std::vector<std::string_view>& fields) {
    while (++record_ < table_.records()) {
      if (record_ % kRecordsPerHeartbeat == 0) heartbeat();
      const Cut cut = table_.cut(record_, cut_);  // no open quote: the table would have thrown
      const auto has_nul = [](std::string_view field) { return field.find('\0') != field.npos; };
      if (cut != Cut::kDone) {
        fault(Fault::kQuote, "text after a closing quote, expected the delimiter");
      } else if (cut_.size() != places_.size()) {
        fault(table_.open_end(record_) ? Fault::kTruncated : Fault::kFieldCount,
              fmt::format("{} fields, expected {} as in the header", cut_.size(), places_.size()));
      } else if (table_.has_nul() && std::any_of(cut_.begin(), cut_.end(), has_nul)) {
        fault(Fault::kNulByte, "a NUL byte, expected text: the file is damaged or not a table");
      } else {
        fields.resize(places_.size());
        for (size_t i = 0; i < places_.size(); ++i)
          fields[i] = cut_[static_cast<size_t>(places_[i])];
        return true;
      }
    }
    return false;
  }

  /// The present record is malformed: throws, or counts it.
  void fault(Fault reason, std::string message) {
    log_.add(reason, table_.line(record_), std::move(message));
    log_.check();
  }

  /// Whether a text that is kept is UTF-8; one that is not is malformed.
  bool is_text(std::string_view column, std::string_view field) {
    if (is_utf8(field)) return true;
    fault(Fault::kEncoding,
          fmt::format("{} is {}, which is not UTF-8: {}", column, shown(field), kConvertToUtf8));
    return false;
  }

  /// The number of the id in `field` among the distinct ones of the table, by `ids`; nothing when it is malformed.
  std::optional<int32_t> id(std::string_view column, std::string_view field, const IdRule& rule) {
    const int32_t number = ids_.find_or_add(
        field, [&](std::string_view text) { return rule.check(column, text, nullptr); });
    if (number >= 0) return number;
    std::string message;
    rule.check(column, field, &message);
    fault(static_cast<Fault>(-number), std::move(message));
    return std::nullopt;
  }
  /// The dense index of the id in `field`; nothing when it is malformed.
  std::optional<int32_t> id(std::string_view column, std::string_view field, const IdRule& rule,
                            const IdIndex& index) {
    const auto number = id(column, field, rule);
    if (!number) return std::nullopt;
    for (size_t next = dense_.size(); next < ids_.ids().size(); ++next)
      dense_.push_back(index.at(ids_.ids()[next]));
    return dense_[static_cast<size_t>(*number)];
  }
  /// The ids asked for so far.
  const std::deque<std::string>& ids() const { return ids_.ids(); }

  size_t count() const { return static_cast<size_t>(table_.records()); }
  const std::vector<std::string>& columns() const { return columns_; }
  /// Lets the text go; only `summary` is left to call.
  void release() { table_.release(); }

  SideTable summary(std::string file, int64_t rows) const {
    return {table_.path().filename().string(),
            std::move(file),
            table_.records(),
            rows,
            log_.counts(),
            table_.sum()};
  }

 private:
  CsvTable table_;
  std::vector<int> places_;
  const std::vector<std::string>& columns_;
  FaultLog log_;
  int64_t record_ = -1;
  std::vector<std::string_view> cut_;
  IdDictionary ids_;
  std::vector<int32_t> dense_;  ///< by the numbers of `ids_`
};

/// "[27, 9]" as integers; nothing when it is not such a list.
std::optional<std::vector<int64_t>> parse_list(std::string_view text) {
  if (!text.starts_with('[') || !text.ends_with(']') || text.size() < 2) return std::nullopt;
  text = text.substr(1, text.size() - 2);
  std::vector<int64_t> values;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    std::string_view item = text.substr(0, comma);
    while (item.starts_with(' ')) item.remove_prefix(1);
    const auto value = parse_integer(item);
    if (!value) return std::nullopt;
    values.push_back(*value);
    if (comma == text.npos) break;
    text.remove_prefix(comma + 1);
    if (text.empty()) return std::nullopt;
  }
  return values;
}

/// A column of numbers: int32 for as long as all are such integers, else doubles.
class NumberColumn {
 public:
  void reserve(size_t count) { integers_.reserve(count); }
  void add(double value) {
    const bool whole =
        value == std::trunc(value) && std::abs(value) <= std::numeric_limits<int32_t>::max();
    if (whole && doubles_.empty()) return integers_.push_back(static_cast<int32_t>(value));
    if (doubles_.empty()) {
      doubles_.reserve(integers_.capacity());
      doubles_.assign(integers_.begin(), integers_.end());
      integers_ = {};
    }
    doubles_.push_back(value);
  }
  void write(ColumnFile& file, const std::string& name) const {
    doubles_.empty() ? file.write(name, integers_) : file.write(name, doubles_);
  }

 private:
  std::vector<int32_t> integers_;
  std::vector<double> doubles_;
};

/// Negative for a text that is not UTF-8.
int32_t code_of(IdDictionary& dictionary, std::string_view text) {
  return dictionary.find_or_add(text, [](std::string_view value) {
    return is_utf8(value) ? IdDictionary::Made{0, std::string(value)} : IdDictionary::Made{-1, {}};
  });
}

void write_codes(ColumnFile& file, const std::string& name, const std::vector<int32_t>& codes,
                 const IdDictionary& dictionary) {
  file.write(name + ".codes", codes);
  file.write_strings(name + ".values",
                     std::vector<std::string>(dictionary.ids().begin(), dictionary.ids().end()));
}

enum class Ids { kUnique, kRepeat };

/// A table with one id column (the first) and columns of numbers and texts.
SideTable write_features(Records records, const std::string& id_name, Ids ids,
                         const IdRule& id_rule, const IdIndex& index,
                         const std::filesystem::path& folder, const std::string& file_name,
                         std::vector<WrittenFile>& files) {
  const std::vector<std::string>& columns = records.columns();
  const size_t count = columns.size();
  std::vector<char> is_text(count), is_date(count);
  for (size_t c = 0; c < count; ++c) {
    is_text[c] = kTextColumns.contains(columns[c]);
    is_date[c] = columns[c] == "date";
  }
  std::vector<int32_t> id_column;
  std::vector<NumberColumn> numbers(count);
  std::vector<std::vector<int32_t>> codes(count);
  std::vector<IdDictionary> texts(count);
  std::vector<bool> seen(static_cast<size_t>(index.size()), false);
  id_column.reserve(records.count());
  for (size_t c = 1; c < count; ++c)
    is_text[c] ? codes[c].reserve(records.count()) : numbers[c].reserve(records.count());
  std::vector<double> parsed(count);  // of a text its code
  std::vector<std::string_view> fields;
  while (records.next(fields)) {
    const auto dense = records.id(columns[0], fields[0], id_rule, index);
    if (!dense) continue;
    if (ids == Ids::kUnique && seen[at(*dense)]) {
      records.fault(Fault::kRepeated, fmt::format("{} {} a second time, expected each once",
                                                  columns[0], index.ids()[at(*dense)]));
      continue;
    }
    bool good = true;
    for (size_t c = 1; c < count && good; ++c) {
      if (is_text[c]) continue;
      std::optional<double> value;
      if (is_date[c]) {
        if (const auto date = parse_date(fields[c])) value = *date;
      } else {
        value =
            fields[c].empty() ? std::numeric_limits<double>::quiet_NaN() : parse_number(fields[c]);
        if (value && !fields[c].empty() && !std::isfinite(*value)) value.reset();
      }
      good = value.has_value();
      if (good)
        parsed[c] = *value;
      else
        records.fault(
            Fault::kNotANumber,
            fmt::format("{} is {}, expected {}", columns[c], shown(fields[c]),
                        is_date[c] ? "a day as yyyymmdd that exists" : "a number or nothing"));
    }
    for (size_t c = 1; c < count && good; ++c) {
      if (!is_text[c]) continue;
      parsed[c] = code_of(texts[c], fields[c]);
      good = parsed[c] >= 0 || records.is_text(columns[c], fields[c]);
    }
    if (!good) continue;
    seen[at(*dense)] = true;
    id_column.push_back(*dense);
    for (size_t c = 1; c < count; ++c) {
      if (is_text[c])
        codes[c].push_back(static_cast<int32_t>(parsed[c]));
      else
        numbers[c].add(parsed[c]);
    }
  }
  records.release();
  ColumnFile file(folder, file_name);
  file.write(id_name, id_column);
  for (size_t c = 1; c < count; ++c) {
    if (is_text[c])
      write_codes(file, columns[c], codes[c], texts[c]);
    else
      std::exchange(numbers[c], {}).write(file, columns[c]);
  }
  files.push_back(file.close());
  return records.summary(file_name, static_cast<int64_t>(id_column.size()));
}

std::vector<int64_t> offsets_of(const std::vector<std::vector<int32_t>>& lists) {
  std::vector<int64_t> offsets{0};
  for (const auto& list : lists)
    offsets.push_back(offsets.back() + static_cast<int64_t>(list.size()));
  return offsets;
}

void write_lists(ColumnFile& file, const std::string& name,
                 const std::vector<std::vector<int32_t>>& lists) {
  std::vector<int32_t> values;
  for (const auto& list : lists) values.insert(values.end(), list.begin(), list.end());
  file.write(name, values);
  file.write(name + ".offsets", offsets_of(lists));
}

/// A list of non-negative integers in int32; nothing when `text` is none.
std::optional<std::vector<int32_t>> parse_small_list(std::string_view text) {
  const auto list = parse_list(text);
  if (!list) return std::nullopt;
  std::vector<int32_t> values;
  for (const int64_t value : *list) {
    if (value < 0 || value > std::numeric_limits<int32_t>::max()) return std::nullopt;
    values.push_back(static_cast<int32_t>(value));
  }
  return values;
}

SideTable write_categories(const std::filesystem::path& path, const IdRule& rule,
                           const IdIndex& items, OnFault on_fault, ColumnFile& file) {
  Records records(path, kCategoryColumns, on_fault);
  std::vector<std::vector<int32_t>> tags(static_cast<size_t>(items.size()));
  std::vector<bool> seen(tags.size(), false);
  std::vector<std::string_view> fields;
  int64_t rows = 0;
  while (records.next(fields)) {
    const auto id = records.id("video_id", fields[0], rule, items);
    if (!id) continue;
    const size_t dense = at(*id);
    const auto list = parse_small_list(fields[1]);
    if (seen[dense]) {
      records.fault(Fault::kRepeated, fmt::format("video_id {} a second time, expected each once",
                                                  items.ids()[dense]));
    } else if (!list) {
      records.fault(Fault::kNotANumber,
                    fmt::format("feat is {}, expected a list as [27, 9]", shown(fields[1])));
    } else {
      seen[dense] = true;
      tags[dense] = *list;
      ++rows;
    }
  }
  write_lists(file, "tags", tags);
  return records.summary("items.h5", rows);
}

SideTable write_captions(const std::filesystem::path& path, const IdRule& rule,
                         const IdIndex& items, OnFault on_fault, ColumnFile& file) {
  Records records(path, kCaptionColumns, on_fault);
  const auto count = static_cast<size_t>(items.size());
  const std::vector<std::string> text_columns = {"manual_cover_text", "caption", "topic_tag"};
  const std::vector<std::string> levels = {"first", "second", "third"};
  std::vector<std::vector<std::string>> texts(3, std::vector<std::string>(count));
  std::vector<std::vector<int32_t>> categories(3, std::vector<int32_t>(count, kNoCategory));
  std::vector<std::vector<std::string>> names(3, std::vector<std::string>(count));
  std::vector<bool> seen(count, false);
  std::vector<std::string_view> fields;
  int64_t rows = 0;
  while (records.next(fields)) {
    const auto id = records.id("video_id", fields[0], rule, items);
    if (!id) continue;
    const size_t dense = at(*id);
    if (seen[dense]) {
      records.fault(Fault::kRepeated, fmt::format("video_id {} a second time, expected each once",
                                                  items.ids()[dense]));
      continue;
    }
    int32_t ids[3] = {};
    bool good = true;
    for (size_t level = 0; level < 3 && good; ++level) {
      const std::string_view field = fields[4 + 2 * level];
      const auto value = parse_integer(field);
      good = value && std::abs(*value) <= std::numeric_limits<int32_t>::max();
      if (good)
        ids[level] = static_cast<int32_t>(*value);
      else
        records.fault(Fault::kNotANumber,
                      fmt::format("{} is {}, expected a whole number",
                                  kCaptionColumns[4 + 2 * level], shown(field)));
    }
    for (const size_t text : {1, 2, 3, 5, 7, 9})
      good = good && records.is_text(kCaptionColumns[text], fields[text]);
    if (!good) continue;
    seen[dense] = true;
    ++rows;
    for (size_t i = 0; i < 3; ++i) {
      texts[i][dense] = fields[1 + i];
      categories[i][dense] = ids[i];
      names[i][dense] = fields[5 + 2 * i];
    }
  }
  for (size_t i = 0; i < 3; ++i) file.write_strings(text_columns[i], texts[i]);
  for (size_t i = 0; i < 3; ++i) {
    file.write(levels[i] + "_level_category_id", categories[i]);
    file.write_strings(levels[i] + "_level_category_name", names[i]);
  }
  return records.summary("items.h5", rows);
}

SideTable write_social(const std::filesystem::path& path, const IdRule& rule, const IdIndex& users,
                       const std::filesystem::path& folder, OnFault on_fault,
                       std::vector<WrittenFile>& files) {
  Records records(path, kSocialColumns, on_fault);
  std::vector<int32_t> user;
  std::vector<std::vector<int32_t>> friends;
  std::vector<bool> seen(static_cast<size_t>(users.size()), false);
  std::vector<std::string_view> fields;
  while (records.next(fields)) {
    const auto dense = records.id("user_id", fields[0], rule, users);
    if (!dense) continue;
    const auto list = parse_list(fields[1]);
    if (seen[at(*dense)]) {
      records.fault(Fault::kRepeated, fmt::format("user_id {} a second time, expected each once",
                                                  users.ids()[at(*dense)]));
      continue;
    }
    if (!list) {
      records.fault(
          Fault::kNotANumber,
          fmt::format("friend_list is {}, expected a list as [4202, 7126]", shown(fields[1])));
      continue;
    }
    std::vector<int32_t> dense_friends;
    for (const int64_t other : *list) {
      const auto checked = records.id("friend_list", std::to_string(other), rule, users);
      if (!checked) break;
      dense_friends.push_back(*checked);
    }
    if (dense_friends.size() != list->size()) continue;
    seen[at(*dense)] = true;
    user.push_back(*dense);
    friends.push_back(std::move(dense_friends));
  }
  ColumnFile file(folder, "social.h5");
  file.write("user", user);
  write_lists(file, "friends", friends);
  files.push_back(file.close());
  return records.summary("social.h5", static_cast<int64_t>(user.size()));
}

void collect_ids(const std::filesystem::path& path, const std::vector<std::string>& columns,
                 OnFault on_fault, std::vector<int64_t>& ids) {
  Records records(path, columns, on_fault);
  std::vector<std::string_view> fields;
  while (records.next(fields)) {
    records.id(columns[0], fields[0], {.integers = true});
    if (&columns != &kSocialColumns) continue;
    // Malformed lists are found, and counted, when the table is written.
    const auto friends = parse_list(fields[1]);
    if (!friends) continue;
    for (const int64_t other : *friends)
      if (other >= 0 && other <= std::numeric_limits<int32_t>::max()) ids.push_back(other);
  }
  for (const std::string& id : records.ids()) ids.push_back(*parse_integer(id));
}

void sort_unique(std::vector<int64_t>& ids) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
}

}  // namespace

const std::vector<std::string>& side_table_columns(const std::string& source) {
  static const std::map<std::string, const std::vector<std::string>*> kColumns = {
      {"user_features.csv", &kUserColumns},
      {"item_categories.csv", &kCategoryColumns},
      {"kuairec_caption_category.csv", &kCaptionColumns},
      {"item_daily_features.csv", &kDailyColumns},
      {"social_network.csv", &kSocialColumns}};
  return *kColumns.at(source);
}

SideSources find_side_sources(const std::filesystem::path& folder) {
  const auto find = [&](const char* name) -> std::optional<std::filesystem::path> {
    if (!std::filesystem::exists(folder / name)) return std::nullopt;
    return folder / name;
  };
  return {find("user_features.csv"), find("item_categories.csv"),
          find("kuairec_caption_category.csv"), find("item_daily_features.csv"),
          find("social_network.csv")};
}

SideIds read_side_ids(const SideSources& sources, OnFault on_fault) {
  SideIds ids;
  if (sources.user_features) {
    collect_ids(*sources.user_features, kUserColumns, on_fault, ids.users);
    ids.users_from = sources.user_features->filename().string();
  } else if (sources.social) {
    collect_ids(*sources.social, kSocialColumns, on_fault, ids.users);
  }
  if (sources.categories) {
    collect_ids(*sources.categories, kCategoryColumns, on_fault, ids.items);
    ids.items_from = sources.categories->filename().string();
  } else {
    if (sources.captions) collect_ids(*sources.captions, kCaptionColumns, on_fault, ids.items);
    if (sources.daily) collect_ids(*sources.daily, kDailyColumns, on_fault, ids.items);
  }
  sort_unique(ids.users);
  sort_unique(ids.items);
  return ids;
}

SideFiles write_side_tables(const SideSources& sources, const SideIds& known, const IdIndex& users,
                            const IdIndex& items, const std::filesystem::path& folder,
                            OnFault on_fault) {
  const IdRule user_rule{true, known.users_from.empty() ? nullptr : &known.users, known.users_from};
  const IdRule item_rule{true, known.items_from.empty() ? nullptr : &known.items, known.items_from};
  SideFiles written;
  if (sources.user_features)
    written.tables.push_back(write_features(Records(*sources.user_features, kUserColumns, on_fault),
                                            "user", Ids::kUnique, user_rule, users, folder,
                                            "users.h5", written.files));
  if (sources.categories || sources.captions) {
    ColumnFile file(folder, "items.h5");
    if (sources.categories)
      written.tables.push_back(
          write_categories(*sources.categories, item_rule, items, on_fault, file));
    if (sources.captions)
      written.tables.push_back(write_captions(*sources.captions, item_rule, items, on_fault, file));
    written.files.push_back(file.close());
  }
  if (sources.daily)
    written.tables.push_back(write_features(Records(*sources.daily, kDailyColumns, on_fault),
                                            "item", Ids::kRepeat, item_rule, items, folder,
                                            "daily.h5", written.files));
  if (sources.social)
    written.tables.push_back(
        write_social(*sources.social, user_rule, users, folder, on_fault, written.files));
  return written;
}

}  // namespace kt
