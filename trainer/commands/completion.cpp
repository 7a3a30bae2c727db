#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "io/config/reference.h"
#include "io/files/json_text.h"
#include "launch/base/errors.h"
#include "launch/process/mpi_session.h"
#include "models/systems/registry.h"
#include "trainer/commands/commands.h"

namespace kt {
namespace {

// The shells ask the program itself, so they know what it knows. A line is a word that may stand at the cursor, with the
// blank that ends it; where there are none, they complete names of files.
const std::map<std::string, const char*> kScripts = {
    {"bash", R"(# source <(kuaitrain completion bash)
_kuaitrain() {
  mapfile -t COMPREPLY < <("${COMP_WORDS[0]}" completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
  [ ${#COMPREPLY[@]} -gt 0 ] || return
  compopt -o nospace 2>/dev/null
  [[ ${COMPREPLY[-1]} == *= ]] || return  # a key: a file may stand there as well
  local folder
  while IFS= read -r folder; do COMPREPLY+=("$(printf %q "$folder")/"); done < <(compgen -d -- "${COMP_WORDS[COMP_CWORD]}")
}
complete -o bashdefault -o default -F _kuaitrain kuaitrain
)"},
    {"zsh", R"(# source <(kuaitrain completion zsh)
_kuaitrain() {
  local -a found
  found=("${(@f)$("${words[1]}" completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  [[ -n ${found[1]} ]] && compadd -Q -S '' -- "${found[@]}"
  _files
}
compdef _kuaitrain kuaitrain
)"},
    {"fish", R"(# kuaitrain completion fish | source
complete -c kuaitrain -a '(kuaitrain completion words -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null | string trim)'
)"}};
constexpr const char* kWords = "words";  // what the scripts ask for

/// The words that an option may be, as its type names them: double|none; NAME names none.
std::vector<std::string> choices(const CLI::Option& option) {
  std::vector<std::string> words;
  std::istringstream parts(option.get_type_name());
  for (std::string word; std::getline(parts, word, '|');) words.push_back(word);
  if (words.size() == 1) words.clear();
  std::erase_if(words, [](const std::string& word) {
    return word.find_first_not_of("abcdefghijklmnopqrstuvwxyz") != std::string::npos;
  });
  return words;
}

/// What may stand in place of the last of `words`, which follow the program's name.
std::vector<std::string> completions(const CLI::App& app, const std::vector<std::string>& words) {
  const std::string word = words.empty() ? "" : words.back();
  const std::vector<const CLI::App*> commands =
      app.get_subcommands([](const CLI::App*) { return true; });
  const CLI::App* named = nullptr;
  for (size_t k = 0; k + 1 < words.size() && named == nullptr; ++k)
    for (const CLI::App* one : commands)
      if (one->get_name() == words[k]) named = one;
  std::vector<std::string> found;
  if (named == nullptr)
    for (const CLI::App* one : commands) found.push_back(one->get_name() + " ");
  const CLI::App* command =
      named != nullptr ? named : app.get_subcommand("train");  // as the program itself takes it
  const CLI::Option* before =
      words.size() < 2 ? nullptr : command->get_option_no_throw(words[words.size() - 2]);
  if (before != nullptr && !before->get_positional() && before->get_expected_max() > 0) {
    found.clear();  // its value
    for (const std::string& choice : choices(*before)) found.push_back(choice + " ");
  } else {
    for (const CLI::Option* option : command->get_options()) {
      if (word.starts_with("-")) {
        for (const std::string& name : option->get_lnames()) found.push_back("--" + name + " ");
      } else if (option->get_positional()) {
        for (const std::string& choice : choices(*option)) found.push_back(choice + " ");
        if (option->get_type_name().find("key.path=value") == std::string::npos) continue;
        for (const std::string& key : key_paths(model_declarations())) found.push_back(key + "=");
      }
    }
  }
  std::erase_if(found, [&](const std::string& one) { return !one.starts_with(word); });
  return found;
}

}  // namespace

void add_completion(CLI::App& app, Action& action) {
  struct Arguments {
    std::string shell;
    std::vector<std::string> words;
  };
  CLI::App* command = app.add_subcommand(
      "completion", "Print what a shell needs to complete commands, options, keys and files");
  const auto arguments = std::make_shared<Arguments>();
  command->add_option("shell", arguments->shell, "The shell")
      ->required()
      ->type_name("bash|zsh|fish");
  command->add_option(kWords, arguments->words, "Of a line, as the scripts ask about it")
      ->group("");
  command->footer(
      "Examples:\n"
      "  source <(kuaitrain completion bash)                # in ~/.bashrc; zsh alike\n"
      "  kuaitrain completion fish > ~/.config/fish/completions/kuaitrain.fish");
  command->callback([arguments, &app, &action] {
    action = [arguments, &app](const GlobalOptions& global) {
      refuse_several_ranks("completion");
      if (arguments->shell == kWords) {
        for (const std::string& word : completions(app, arguments->words)) fmt::print("{}\n", word);
        return static_cast<int>(kExitDone);
      }
      const auto script = kScripts.find(arguments->shell);
      if (script == kScripts.end())
        user_error("completion: got {}, expected bash, zsh or fish", arguments->shell);
      if (global.json)
        fmt::print("{}\n", to_text({{"shell", script->first}, {"script", script->second}}, 2));
      else
        fmt::print("{}", script->second);
      return static_cast<int>(kExitDone);
    };
  });
}

}  // namespace kt
