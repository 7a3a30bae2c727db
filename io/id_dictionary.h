#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

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
    const uint64_t hash = hash_of(text);
    Entry& entry = slot(text, hash);
    if (entry.used) [[likely]]
      return entry.value;
    return add(entry, text, hash, make(text));
  }
  /// What `make` returns.
  struct Made {
    int32_t code = 0;  ///< negative: the text is no id
    std::string id;
  };
  /// The ids by number; several numbers may share one id.
  const std::deque<std::string>& ids() const { return ids_; }

 private:
  struct Entry {
    uint64_t hash = 0;
    const char* text = nullptr;
    uint32_t length = 0;
    int32_t value = 0;
    bool used = false;
  };
  static uint64_t hash_of(std::string_view text);
  Entry& slot(std::string_view text, uint64_t hash);
  int32_t add(Entry& entry, std::string_view text, uint64_t hash, Made made);

  std::vector<Entry> table_;
  size_t used_ = 0;
  std::deque<std::string> texts_;
  std::deque<std::string> ids_;
};

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
  bool integers_ = false;
};

}  // namespace kt
