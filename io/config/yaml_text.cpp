#include "io/config/yaml_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/eventhandler.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "launch/base/text.h"

namespace kt::yaml {
namespace {

/// Sees to it that a text is one YAML document. yaml-cpp 0.7 reads what belongs to no document, as a comma before
/// any bracket, as empty documents without end, so it is never asked for more than the second.
class OneDocument final : public YAML::EventHandler {
 public:
  static void check(const std::string& text, Aliases aliases) {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    OneDocument handler(aliases);
    if (parser.HandleNextDocument(handler)) parser.HandleNextDocument(handler);
  }

 private:
  explicit OneDocument(Aliases aliases) : aliases_(aliases) {}
  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1)
      throw Refusal{mark.line,
                    "got a second document, or text that belongs to no key, expected one document; "
                    "keep one of them"};
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    if (aliases_ == Aliases::kRefused)
      throw Refusal{mark.line, "got an alias, expected every value where it belongs; write it out"};
  }
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}

  Aliases aliases_;
  int documents_ = 0;
};

}  // namespace

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

// yaml-cpp's tags of a scalar without quotes and of one in quotes are "?" and "!"; a node that the program made has
// none.
bool is_plain(const YAML::Node& node) { return node.IsScalar() && node.Tag() == "?"; }
bool is_quoted(const YAML::Node& node) { return node.IsScalar() && node.Tag() == "!"; }
bool is_tagged(const YAML::Node& node) {
  return !node.IsNull() && node.Tag() != "?" && node.Tag() != "!" && !node.Tag().empty();
}

std::string shown(std::string_view text) {
  constexpr size_t kMost = 200;
  std::string cut(text.substr(0, kMost));
  const std::string escaped =
      nlohmann::json(cut).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (escaped != '"' + cut + '"' && std::any_of(cut.begin(), cut.end(), [](char c) {
        return is_control(c) || static_cast<unsigned char>(c) >= 0x80;
      }))
    cut = escaped;
  return text.size() > kMost ? cut + "..." : cut;
}

std::string got(const YAML::Node& node) {
  if (node.IsMap()) return "a section";
  if (node.IsNull()) return "nothing";
  std::string text;
  if (node.IsSequence()) {
    std::vector<std::string> elements;
    for (const YAML::Node& element : node)
      elements.push_back(element.IsScalar() ? element.Scalar() : "...");
    text = shown(fmt::format("[{}]", fmt::join(elements, ", ")));
  } else {
    text = shown(node.Scalar());
  }
  return fmt::format("{}{}{}", text, is_quoted(node) ? " in quotes" : "",
                     is_tagged(node) ? " with the tag " + shown(node.Tag()) : "");
}

YAML::Node parse(const std::string& text, size_t most_bytes, std::string_view allowed_controls,
                 Aliases aliases) {
  if (text.size() > most_bytes)
    throw Refusal{0, fmt::format("got more than the {} bytes that are read, expected a "
                                 "configuration; check that it is one",
                                 most_bytes)};
  int line = 0;
  std::string of_line;
  std::istringstream lines(text);
  for (; std::getline(lines, of_line); ++line) {
    const bool controls = std::any_of(of_line.begin(), of_line.end(), [&](char c) {
      return is_control(c) && allowed_controls.find(c) == allowed_controls.npos;
    });
    if (controls || !is_utf8(of_line))
      throw Refusal{line, fmt::format("got {}, expected UTF-8 text without control characters; "
                                      "write it anew",
                                      shown(of_line))};
  }
  OneDocument::check(text, aliases);
  return YAML::Load(text);
}

std::string place(const std::string& name, const YAML::Mark& mark) {
  return fmt::format("{}:{}", name, mark.is_null() ? 1 : mark.line + 1);
}

std::optional<std::string> read_file(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  std::string text(kMostFileBytes + 1, '\0');
  const bool readable = stream && !std::filesystem::is_directory(path);
  if (readable) stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!readable || stream.bad()) return std::nullopt;
  text.resize(static_cast<size_t>(stream.gcount()));
  return text;
}

void read_document(const std::string& text, const std::string& name,
                   const std::function<void(const YAML::Node&)>& read,
                   std::vector<std::string>& faults, Aliases aliases) {
  try {
    read(parse(text, kMostFileBytes, "\t\r", aliases));
  } catch (const Refusal& refusal) {
    faults.push_back(fmt::format("{}:{}: {}", name, refusal.line + 1, refusal.message));
  } catch (const YAML::Exception& error) {
    faults.push_back(
        fmt::format("{}: got text that is no YAML ({}), expected 'key: value' lines; check the "
                    "indentation, quotes and brackets there",
                    place(name, error.mark), error.msg));
  }
}

bool is_whole(const YAML::Node& node, const std::string& text) {
  const char first = text.front(), last = text.back();
  if (is_plain(node)) return node.Scalar() == text;
  if (is_quoted(node)) return text.size() > 1 && first == last && (first == '"' || first == '\'');
  if (node.IsNull()) return text == "~" || text == "null" || text == "Null" || text == "NULL";
  if (node.IsSequence()) return first == '[' && last == ']';
  return true;
}

}  // namespace kt::yaml
