#include "harness/cli/program.h"

#include <ostream>

#include "harness/backends/backend_failure.h"
#include "harness/cli/command_tree.h"
#include "harness/cli/exit_code.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

int exit_code_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage:
    case ErrorKind::kConfig:
      return kUsage;
    case ErrorKind::kInput:
      return kBadInput;
    case ErrorKind::kUnsupported:
      return kComparisonFailed;
    case ErrorKind::kInternal:
      break;
  }
  return kInternal;
}

int parse_and_run(CommandTree& tree, const std::vector<std::string>& args, const Streams& streams) {
  if (args.empty()) {
    streams.out << tree.app().help() << std::flush;
    return kUsage;
  }
  try {
    tree.parse(args);
  } catch (const CLI::CallForHelp&) {
    streams.out << tree.app().help() << std::flush;
    return kAllPassed;
  } catch (const CLI::CallForVersion& version) {
    streams.out << version.what() << std::flush;
    return kAllPassed;
  }
  std::vector<std::string> words = {"attn-compare"};
  words.insert(words.end(), args.begin(), args.end());
  if (!tree.action()) {
    throw Error(ErrorKind::kUsage, "which verb? attn-compare --help lists them");
  }
  return tree.action()(Session{streams, join_command_line(words)});
}

}  // namespace

int run_program(const std::vector<std::string>& args, const Streams& streams) {
  CommandTree tree;
  // git takes every code from 1 to 124 for a bad commit.
  const auto failed_with = [&](int code) {
    return tree.verb() == "bisect-step" ? int{kCannotJudge} : code;
  };
  const auto name = [&] {
    return tree.verb().empty() ? std::string("attn-compare: ")
                               : "attn-compare " + tree.verb() + ": ";
  };
  try {
    return parse_and_run(tree, args, streams);
  } catch (const Error& error) {
    streams.err << name() << error.what() << std::endl;
    if (error.kind() == ErrorKind::kInternal) {
      streams.err << "this is a mistake of attn-compare itself, not of what it tests" << std::endl;
    }
    return failed_with(exit_code_of(error.kind()));
  } catch (const harness::BackendFailure& failure) {
    streams.err << name() << "the backend " << failure.what() << std::endl;
    return failed_with(kBackendDied);
  } catch (const std::exception& error) {
    streams.err << name() << "internal error: " << error.what() << std::endl;
    return failed_with(kInternal);
  }
}

}  // namespace attn::cli
