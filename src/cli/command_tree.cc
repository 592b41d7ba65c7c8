#include "cli/command_tree.h"

#include <numeric>

namespace quarry::cli {
namespace {

// (path of command names, shape) of every command, the root first.
void flatten(const CommandShape& shape, const std::string& path, std::vector<std::pair<std::string, const CommandShape*>>& out) {
  out.emplace_back(path, &shape);
  for (const auto& command : shape.commands) flatten(command, path.empty() ? command.name : path + " " + command.name, out);
}

std::string words_of(const CommandShape& shape) {
  std::string words;
  for (const auto& command : shape.commands) words += command.name + " ";
  for (const auto& option : shape.options) words += option.name + " ";
  if (!words.empty()) words.pop_back();
  return words;
}

std::string quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string bash_script(const CommandShape& root) {
  std::vector<std::pair<std::string, const CommandShape*>> all;
  flatten(root, "", all);
  std::string script =
      "# bash completion for quarry:  source <(quarry completion bash)\n_quarry() {\n"
      "  local word path='' candidates=''\n"
      "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
      "    case \"$path ${word}\" in\n";
  for (const auto& [path, shape] : all) {
    if (path.empty()) continue;
    const size_t space = path.rfind(' ');
    const std::string parent = space == std::string::npos ? "" : path.substr(0, space);
    script += fmt::format("      {}) path={} ;;\n", quoted(parent + " " + shape->name), quoted(path));
  }
  script += "    esac\n  done\n  case \"$path\" in\n";
  for (const auto& [path, shape] : all) script += fmt::format("    {}) candidates={} ;;\n", quoted(path), quoted(words_of(*shape)));
  script +=
      "  esac\n  COMPREPLY=($(compgen -W \"$candidates\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n}\n"
      "complete -o default -F _quarry quarry\n";
  return script;
}

std::string zsh_script(const CommandShape& root) {
  return "#compdef quarry\n# zsh completion for quarry:  source <(quarry completion zsh)\nautoload -U +X bashcompinit && bashcompinit\n" +
         bash_script(root);
}

std::string fish_script(const CommandShape& root) {
  std::vector<std::pair<std::string, const CommandShape*>> all;
  flatten(root, "", all);
  std::string script =
      "# fish completion for quarry:  quarry completion fish | source\n"
      "function __quarry_at\n  set -l words (string match -v -- '-*' (commandline -opc)[2..])\n"
      "  set -l depth (count $argv)\n"
      "  test (count $words) -ge $depth; and test \"$words[1..$depth]\" = \"$argv\"\nend\n";
  for (const auto& [path, shape] : all) {
    const std::string condition = path.empty() ? "__fish_use_subcommand" : "__quarry_at " + path;
    for (const auto& command : shape->commands) {
      script += fmt::format("complete -c quarry -n {} -f -a {} -d {}\n", quoted(condition), quoted(command.name), quoted(command.help));
    }
    for (const auto& option : shape->options) {
      const std::string name = option.name.substr(option.name.find_first_not_of('-'));
      script += fmt::format("complete -c quarry -n {} -l {} {}-d {}\n", quoted(condition), quoted(name), option.takes_value ? "-r " : "",
                            quoted(option.help));
    }
  }
  return script;
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string completion_script(const CommandShape& root, std::string_view shell) {
  if (shell == "bash") return bash_script(root);
  if (shell == "zsh") return zsh_script(root);
  if (shell == "fish") return fish_script(root);
  return {};
}

std::string closest(std::string_view typed, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(1, typed.size() / 3) + 1;
  for (const auto& candidate : candidates) {
    const size_t distance = edit_distance(typed, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace quarry::cli
