// SPDX-License-Identifier: Apache-2.0
// annulus check: exit 0 for a plan that is proved right, 1 for one that is not, 2 for a file that
// is no plan.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "client/cli/commands/commands.h"
#include "client/cli/exit_code.h"
#include "client/io/mapped_file.h"
#include "server/ring/checker/checker.h"
#include "server/ring/names.h"
#include "server/ring/plan_json.h"

namespace annulus::cli {
namespace {

int CheckPlanFile(const std::string& path) {
  const auto file = io::MappedFile::Open(path);
  if (!file.ok()) return Fail(UsageError(file.status()));
  const absl::string_view text(reinterpret_cast<const char*>(file->bytes().data()),
                               file->bytes().size());
  const auto plan = ring::ParsePlanJson(text);
  if (!plan.ok()) {
    return Fail(UsageError(absl::StrCat(path, ": ", std::string(plan.status().message()))));
  }
  const absl::Status checked = ring::CheckPlan(*plan);
  if (!checked.ok()) {
    std::fprintf(stderr, "annulus: %s: the plan is wrong: %s\n", path.c_str(),
                 std::string(checked.message()).c_str());
    return kVerificationFailed;
  }
  std::printf("%s: right: %s, %s, %d ranks, %d steps, digest %s\n", path.c_str(),
              std::string(ring::Name(plan->algorithm)).c_str(),
              std::string(ring::Name(plan->direction)).c_str(), plan->context_parallel_size,
              plan->steps, plan->digest.c_str());
  return kDone;
}

}  // namespace

Command AddCheckCommand(CLI::App* app) {
  auto path = std::make_shared<std::string>();
  app->add_option("FILE", *path, "A plan, schema annulus.plan.v1")->required();
  return [path] { return CheckPlanFile(*path); };
}

}  // namespace annulus::cli
