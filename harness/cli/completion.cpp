#include "harness/backends/backend.h"
#include "harness/cli/command_tree.h"
#include "harness/generate/case_spec.h"
#include "reference/core/trace.h"

namespace attn::cli {
namespace {

/// How bash completes a value of this kind.
std::string completer(const std::string& kind) {
  const auto words = [](const std::string& list) {
    return "mapfile -t COMPREPLY < <(compgen -W \"" + list + "\" -- \"$cur\")";
  };
  std::string list;
  if (kind == "FILE" || kind == "JSON") {
    return "mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")";
  }
  if (kind == "DIR") return "mapfile -t COMPREPLY < <(compgen -d -- \"$cur\")";
  if (kind == "BACKEND") {
    for (const harness::BackendInfo& info : harness::list_backends()) list += info.name + " ";
    return words(list);
  }
  if (kind == "STAGE") {
    for (const Stage stage : all_stages()) list += std::string(name_of(stage)) + " ";
    return words(list);
  }
  if (kind == "PROFILE") {
    for (const harness::ProfileInfo& info : harness::list_profiles()) list += info.name + " ";
    return words(list);
  }
  if (kind == "LAYOUT") return words("thd bhsd bshd");
  if (kind == "WHAT") return words("backends variants stages profiles faults");
  if (kind == "ROWS") return words("all auto");
  if (kind == "SHELL") return words("bash");
  return ":";
}

std::string names_of(const CLI::Option& option) {
  std::string names;
  for (const std::string& name : option.get_lnames()) names += "--" + name + " ";
  for (const std::string& name : option.get_snames()) names += "-" + name + " ";
  return names;
}

std::string joined(std::string names, const std::string& separator) {
  if (!names.empty()) names.pop_back();
  std::string out;
  for (const char c : names) out += c == ' ' ? separator : std::string(1, c);
  return out;
}

/// The case branch of one verb: values of its options first, then option names, then what it takes.
std::string branch(const CLI::App& verb) {
  std::string option_words;
  std::string positional = ":";
  std::string text = "    \"" + verb_path(verb) + "\")\n      case \"$prev\" in\n";
  for (const CLI::Option* option : verb.get_options()) {
    if (option->get_positional()) {
      positional = completer(value_name(*option));
      continue;
    }
    option_words += names_of(*option);
    if (option->get_type_size() != 0) {
      text += "        " + joined(names_of(*option), "|") + ") " + completer(value_name(*option)) +
              "; return ;;\n";
    }
  }
  for (const CLI::App* sub : verb.get_subcommands({})) {
    if (positional == ":") positional.clear();
    positional += sub->get_name() + " ";
  }
  if (!verb.get_subcommands({}).empty()) {
    positional = "mapfile -t COMPREPLY < <(compgen -W \"" + positional + "\" -- \"$cur\")";
  }
  text += "      esac\n      if [[ $cur == -* ]]; then\n";
  text += "        mapfile -t COMPREPLY < <(compgen -W \"" + option_words + "\" -- \"$cur\")\n";
  text += "      else\n        " + positional + "\n      fi ;;\n";
  for (const CLI::App* sub : verb.get_subcommands({})) text += branch(*sub);
  return text;
}

/// The patterns "verb word" that lead from one verb to the next.
std::string transitions(const CLI::App& verb) {
  std::string text;
  for (const CLI::App* sub : verb.get_subcommands({})) {
    const std::string from = verb_path(verb);
    text += "      \"" + from + "|" + sub->get_name() + "\") verb=\"" + verb_path(*sub) + "\" ;;\n";
    text += transitions(*sub);
  }
  return text;
}

}  // namespace

std::string bash_completion(const CLI::App& app) {
  return "# bash completion for attn-compare; made by: attn-compare completion bash\n"
         "_attn_compare() {\n"
         "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=\"\" word\n"
         "  COMPREPLY=()\n"
         "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
         "    case \"$verb|$word\" in\n" +
         transitions(app) +
         "    esac\n"
         "  done\n"
         "  case \"$verb\" in\n" +
         branch(app) +
         "  esac\n"
         "}\n"
         "complete -o filenames -o bashdefault -F _attn_compare attn-compare\n";
}

}  // namespace attn::cli
