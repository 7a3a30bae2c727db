#include "io/tables/id_dictionary.h"

#include <xxhash.h>

#include <algorithm>
#include <limits>

#include "io/tables/csv.h"
#include "launch/base/errors.h"

namespace kt {
namespace {

/// The integer an id is, where no other id spells the same number.
std::optional<int64_t> plain_integer(std::string_view id) {
  const auto value = parse_integer(id);
  if (!value || id.size() != std::to_string(*value).size()) return std::nullopt;
  return value;
}

template <class T>
void sort_distinct(std::vector<T>& values) {
  std::ranges::sort(values);
  values.erase(std::unique(values.begin(), values.end()), values.end());
  values.shrink_to_fit();
}

}  // namespace

IdDictionary::IdDictionary() : table_(1024) {}

uint64_t IdDictionary::long_hash(std::string_view text) {
  return XXH3_64bits(text.data(), text.size());
}

int32_t IdDictionary::add(size_t place, const Key& key, std::string_view text, Made made) {
  int32_t value = made.code;
  if (value >= 0) {
    KT_CHECK(ids_.size() < std::numeric_limits<int32_t>::max(), "too many ids");
    value = static_cast<int32_t>(ids_.size());
    ids_.push_back(std::move(made.id));
  }
  // A short text is whole in its key.
  const char* const kept = key.length > kShortText ? texts_.emplace_back(text).data() : "";
  table_[place] = {key.head, key.length, value, kept};
  if (++used_ * 4 > table_.size() * 3) {
    std::vector<Entry> old(table_.size() * 2);
    old.swap(table_);
    for (const Entry& moved : old)
      if (moved.text != nullptr)
        table_[find({moved.head, moved.length}, {moved.text, moved.length})] = moved;
  }
  return value;
}

std::vector<int64_t> ascending_numbers(std::span<const std::string> ids) {
  std::vector<int64_t> numbers;
  for (const std::string& id : ids) {
    const std::optional<int64_t> number = parse_integer(id);
    if (!number || *number <= (numbers.empty() ? -1 : numbers.back())) return {};
    numbers.push_back(*number);
  }
  return numbers;
}

IdIndex::IdIndex(std::vector<std::string> ids) : ids_(std::move(ids)) {
  integers_.reserve(ids_.size());
  for (const std::string& id : ids_) {
    const std::optional<int64_t> integer = plain_integer(id);
    if (!integer) {
      integers_ = std::vector<int64_t>();
      sort_distinct(ids_);
      return;
    }
    integers_.push_back(*integer);
  }
  ids_ = std::vector<std::string>();  // made again of the integers, which sort faster
  sort_distinct(integers_);
  ids_.reserve(integers_.size());
  for (const int64_t integer : integers_) ids_.push_back(std::to_string(integer));
}

int32_t IdIndex::at(std::string_view id) const {
  size_t place = 0;
  if (const auto integer = integers_.empty() ? std::nullopt : parse_integer(id))
    place = static_cast<size_t>(std::ranges::lower_bound(integers_, *integer) - integers_.begin());
  else
    place = static_cast<size_t>(std::lower_bound(ids_.begin(), ids_.end(), id) - ids_.begin());
  KT_CHECK(place < ids_.size() && ids_[place] == id, "id {} is not in the index", id);
  return static_cast<int32_t>(place);
}

}  // namespace kt
