#pragma once

#include <yaml-cpp/yaml.h>

#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// YAML that others wrote: what is accepted as one document, and how messages show what was got.
namespace kt::yaml {

bool is_control(char c);

// A scalar without quotes, one in quotes, and a node with a tag, which means to change what its value is.
bool is_plain(const YAML::Node& node);
bool is_quoted(const YAML::Node& node);
bool is_tagged(const YAML::Node& node);

/// For messages: what cannot be printed is escaped, and of a long text only the beginning is shown.
std::string shown(std::string_view text);
/// What a node holds, for messages.
std::string got(const YAML::Node& node);

/// Why a text is not read. Line 0 is its first.
struct Refusal {
  int line;
  std::string message;
};

// Of a file and of a value of the command line: the time and memory a parser takes are bounded by it.
constexpr size_t kMostFileBytes = 64 << 10;
constexpr size_t kMostValueBytes = 8 << 10;

/// Whether a node may stand in several places. Written out, such a document can be longer than any memory, or have no
/// end.
enum class Aliases { kAllowed, kRefused };

/// The one document that `text` is. Throws: Refusal, YAML::Exception.
YAML::Node parse(const std::string& text, size_t most_bytes, std::string_view allowed_controls,
                 Aliases aliases = Aliases::kAllowed);

/// Where a mark of `name` is, for messages.
std::string place(const std::string& name, const YAML::Mark& mark);

/// As much of a file as is read, and a byte more of a longer one; nothing where there is no file that can be read.
std::optional<std::string> read_file(const std::filesystem::path& path);

/// Passes the document that `text`, of the file `name`, is to `read`. What is no YAML becomes a fault, a line.
void read_document(const std::string& text, const std::string& name,
                   const std::function<void(const YAML::Node&)>& read,
                   std::vector<std::string>& faults, Aliases aliases = Aliases::kAllowed);

/// Whether `node` is all of `text`: not what is left of it without a comment, or blanks at its ends.
bool is_whole(const YAML::Node& node, const std::string& text);

}  // namespace kt::yaml
