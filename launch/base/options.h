#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "launch/base/errors.h"

/// Options that a model declares beside itself, as plain data: the configuration reads them and knows no model, the
/// model takes their values and knows no configuration.
namespace kt {

/// A whole number, a number, a word, a flag or a list of whole numbers.
using OptionValue = std::variant<int64_t, double, std::string, bool, std::vector<int64_t>>;

/// Bounds of a number, or of each number of a list.
struct Bounds {
  double low = 0;
  double high = 0;
  bool high_open = false;  ///< `high` itself is out of bounds
};

/// One option: the key `model.<path>`.
struct OptionDeclaration {
  std::string path;           ///< "hidden", "target.low"; those of one section stand together
  OptionValue default_value;  ///< its type is the kind of the option
  Bounds bounds;
  std::vector<std::string> words;  ///< that a word may be
  std::string text;                ///< what it is for
};

inline OptionDeclaration whole_option(std::string path, int64_t value, Bounds bounds,
                                      std::string text) {
  return {std::move(path), value, bounds, {}, std::move(text)};
}
inline OptionDeclaration number_option(std::string path, double value, Bounds bounds,
                                       std::string text) {
  return {std::move(path), value, bounds, {}, std::move(text)};
}
inline OptionDeclaration word_option(std::string path, std::string value,
                                     std::vector<std::string> words, std::string text) {
  return {std::move(path), std::move(value), {}, std::move(words), std::move(text)};
}
inline OptionDeclaration flag_option(std::string path, bool value, std::string text) {
  return {std::move(path), value, {}, {}, std::move(text)};
}
inline OptionDeclaration list_option(std::string path, std::vector<int64_t> value, Bounds bounds,
                                     std::string text) {
  return {std::move(path), std::move(value), bounds, {}, std::move(text)};
}

/// What `model.name` may be, and the options that then exist.
struct ModelDeclaration {
  std::string name;
  std::string about;  ///< one line
  std::vector<OptionDeclaration> options;
};

/// The options of one model with their values.
/// Throws: BugError for an option that is not declared, or not of the kind asked for.
class OptionValues {
 public:
  struct Option {
    OptionDeclaration declared;
    OptionValue value;
  };

  OptionValues() = default;
  /// Every option at its default.
  explicit OptionValues(const std::vector<OptionDeclaration>& declared) {
    for (const OptionDeclaration& option : declared) all.push_back({option, option.default_value});
  }

  int64_t whole(std::string_view path) const { return get<int64_t>(path); }
  double number(std::string_view path) const { return get<double>(path); }
  const std::string& word(std::string_view path) const { return get<std::string>(path); }
  bool flag(std::string_view path) const { return get<bool>(path); }
  const std::vector<int64_t>& list(std::string_view path) const {
    return get<std::vector<int64_t>>(path);
  }

  void set(std::string_view path, OptionValue value) {
    for (Option& option : all)
      if (option.declared.path == path && option.value.index() == value.index()) {
        option.value = std::move(value);
        return;
      }
    KT_CHECK(false, "no option '{}' of that kind is declared", path);
  }

  std::vector<Option> all;  ///< in the order of their declarations

 private:
  template <class T>
  const T& get(std::string_view path) const {
    for (const Option& option : all)
      if (option.declared.path == path) {
        const T* value = std::get_if<T>(&option.value);
        KT_CHECK(value != nullptr, "option '{}' is of another kind", path);
        return *value;
      }
    KT_CHECK(false, "no option '{}' is declared", path);
  }
};

}  // namespace kt
