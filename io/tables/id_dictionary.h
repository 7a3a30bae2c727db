#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/tables/short_text.h"

/// Ids of users and items, from how a source spells them to dense indices.
namespace kt {

/// Numbers texts in the order of their first appearance; each may carry a negative code instead of a number.
class IdDictionary {
 public:
  IdDictionary();
  /// The number of `text`; a new one gets what `make(text)` returns: a text to keep as its id, which may differ
  /// from how it is spelt here, or a negative code.
  template <class Make>
  int32_t find_or_add(std::string_view text, Make&& make) {
    const Key key = key_of(text);
    const size_t place = find(key, text);
    if (table_[place].text != nullptr) [[likely]]
      return table_[place].value;
    return add(place, key, text, make(text));
  }
  /// What `make` returns.
  struct Made {
    int32_t code = 0;  ///< negative: the text is no id
    std::string id;
  };
  /// The ids by number; several numbers may share one id.
  const std::deque<std::string>& ids() const { return ids_; }

 private:
  /// A short text is its `head`, and needs no look at the bytes.
  struct Key {
    uint64_t head = 0;  ///< all bytes; of a longer text, its hash
    uint32_t length = 0;
  };
  struct Entry {
    uint64_t head = 0;
    uint32_t length = 0;
    int32_t value = 0;
    const char* text = nullptr;  ///< null: free
  };

  static Key key_of(std::string_view text) {
    return {text.size() > kShortText ? long_hash(text) : short_text(text),
            static_cast<uint32_t>(text.size())};
  }
  size_t find(const Key& key, std::string_view text) const {
    const size_t mask = table_.size() - 1;
    // Fibonacci hashing; the high bits are the good ones.
    size_t at = (key.head + key.length) * 0x9e3779b97f4a7c15 >> 32 & mask;
    for (;; at = (at + 1) & mask) {
      const Entry& entry = table_[at];
      if (entry.text == nullptr) return at;
      if (entry.head == key.head && entry.length == key.length &&
          (key.length <= kShortText || std::string_view(entry.text, key.length) == text))
        return at;
    }
  }
  static uint64_t long_hash(std::string_view text);
  int32_t add(size_t place, const Key& key, std::string_view text, Made made);

  std::vector<Entry> table_;
  size_t used_ = 0;
  std::deque<std::string> texts_;  ///< those that are not short
  std::deque<std::string> ids_;
};

/// The numbers that ids are; none where one is no whole number of 0 or more, or no more than the one before it.
std::vector<int64_t> ascending_numbers(std::span<const std::string> ids);

/// All ids of one kind in ascending order, which is their dense index: of numbers when every id is an integer
/// in its plain form, of bytes otherwise.
class IdIndex {
 public:
  IdIndex() = default;
  /// Repeats are welcome.
  explicit IdIndex(std::vector<std::string> ids);

  int64_t size() const { return static_cast<int64_t>(ids_.size()); }
  const std::vector<std::string>& ids() const { return ids_; }
  /// The dense index. Throws: BugError for an id that is not there.
  int32_t at(std::string_view id) const;

 private:
  std::vector<std::string> ids_;
  std::vector<int64_t> integers_;  ///< that the ids are; empty where not all are
};

}  // namespace kt
