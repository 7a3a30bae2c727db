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

bool before_as_integers(std::string_view a, std::string_view b) {
  return *parse_integer(a) < *parse_integer(b);
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
  const std::string& kept = texts_.emplace_back(text);
  table_[place] = {key.head, key.length, value, kept.data()};
  if (++used_ * 2 > table_.size()) {
    std::vector<Entry> old(table_.size() * 2);
    old.swap(table_);
    for (const Entry& moved : old)
      if (moved.text != nullptr)
        table_[find({moved.head, moved.length}, {moved.text, moved.length})] = moved;
  }
  return value;
}

IdIndex::IdIndex(std::vector<std::string> ids) : ids_(std::move(ids)) {
  integers_ = std::all_of(ids_.begin(), ids_.end(),
                          [](const std::string& id) { return plain_integer(id).has_value(); });
  if (integers_)
    std::sort(ids_.begin(), ids_.end(), before_as_integers);
  else
    std::sort(ids_.begin(), ids_.end());
  ids_.erase(std::unique(ids_.begin(), ids_.end()), ids_.end());
  ids_.shrink_to_fit();
}

int32_t IdIndex::at(std::string_view id) const {
  const auto place = integers_ ? std::lower_bound(ids_.begin(), ids_.end(), id, before_as_integers)
                               : std::lower_bound(ids_.begin(), ids_.end(), id);
  KT_CHECK(place != ids_.end() && *place == id, "id {} is not in the index", id);
  return static_cast<int32_t>(place - ids_.begin());
}

}  // namespace kt
