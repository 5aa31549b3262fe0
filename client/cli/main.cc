// SPDX-License-Identifier: Apache-2.0
// annulus: the command line. One file per command under commands/.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <utility>
#include <vector>

#include "client/cli/commands/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/interrupt.h"

namespace annulus::cli {
namespace {

struct Entry {
  const char* name;
  const char* help;
  Command (*add)(CLI::App*);
};

constexpr Entry kCommands[] = {
    {"run", "Attention forward, and backward with --backward, over a ring of workers",
     AddRunCommand},
    {"plan", "Shows what every rank computes and moves in every step; offline", AddPlanCommand},
    {"check", "Proves that a plan file is right, or says what is wrong with it", AddCheckCommand},
    {"up", "A local cluster in the foreground, until Ctrl-C", AddUpCommand},
    {"workers", "Lists the workers of a cluster", AddWorkersCommand},
    {"groups", "Lists the groups of a cluster", AddGroupsCommand},
    {"topology", "Who sits where in a ring, over what its hops go, and why; live or described",
     AddTopologyCommand},
    {"trace", "Draws a timeline that run --trace wrote", AddTraceCommand},
    {"bench", "Speed of the kernels, or of a ring, as a share of what the processor can do",
     AddBenchCommand},
};

int Main(int argc, char** argv) {
  InstallInterrupts();
  CLI::App app{"Exact attention over sequences too long for one device, run as a service."};
  app.name("annulus");
  app.footer(
      "Exit codes: 0 done, 1 verification failed, 2 usage, 3 the service refused, 4 a fault.");
  app.set_version_flag("--version", ANNULUS_VERSION);
  app.require_subcommand(1);
  std::vector<std::pair<CLI::App*, Command>> commands;
  for (const Entry& entry : kCommands) {
    CLI::App* sub = app.add_subcommand(entry.name, entry.help);
    commands.emplace_back(sub, entry.add(sub));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDone : kUsage;
  }
  for (const auto& [sub, command] : commands) {
    if (sub->parsed()) return command();
  }
  return kUsage;
}

}  // namespace
}  // namespace annulus::cli

int main(int argc, char** argv) {
  // Ours are statuses; what is left is the flag library's and the system's, such as std::bad_alloc.
  try {
    return annulus::cli::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "annulus: fault: %s\n", error.what());
    return annulus::cli::kFault;
  }
}
