// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace annulus::cli {

// Each adds one command with its flags to `app` and returns what runs it: an exit code. The flags
// live as long as the returned function.
using Command = std::function<int()>;

Command AddRunCommand(CLI::App* app);
Command AddPlanCommand(CLI::App* app);
Command AddCheckCommand(CLI::App* app);
Command AddUpCommand(CLI::App* app);
Command AddWorkersCommand(CLI::App* app);
Command AddGroupsCommand(CLI::App* app);
Command AddTopologyCommand(CLI::App* app);
Command AddTraceCommand(CLI::App* app);
Command AddBenchCommand(CLI::App* app);

}  // namespace annulus::cli
