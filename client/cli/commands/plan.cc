// SPDX-License-Identifier: Apache-2.0
// annulus plan: a plan for people or as JSON, made here without any service.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "client/cli/commands/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/flags.h"
#include "client/cli/text_output.h"
#include "server/base/status_macros.h"
#include "server/ring/checker/checker.h"
#include "server/ring/plan_json.h"
#include "server/ring/plan_text.h"
#include "server/ring/planner.h"

namespace annulus::cli {
namespace {

struct PlanFlags {
  ShapeFlags shape;
  std::string direction = "forward";
  bool keep_resident = false;
  std::string output;
  Format format = Format::kText;
};

absl::StatusOr<std::string> Plan(const PlanFlags& flags) {
  ANNULUS_ASSIGN_OR_RETURN(const ring::Direction direction, ParseDirection(flags.direction));
  const int64_t query_length = flags.shape.seq_length.value_or(4096);
  ANNULUS_ASSIGN_OR_RETURN(ring::Spec spec,
                           SpecFromFlags(flags.shape, direction, query_length,
                                         flags.shape.kv_seq_length.value_or(query_length)));
  spec.keep_resident = flags.keep_resident;
  const auto plan = ring::MakePlan(spec);
  if (!plan.ok()) return UsageError(plan.status());
  ANNULUS_RETURN_IF_ERROR(ring::CheckPlan(*plan));
  return flags.format == Format::kJson ? ring::PlanToJson(*plan) + "\n" : ring::PlanToText(*plan);
}

}  // namespace

Command AddPlanCommand(CLI::App* app) {
  auto flags = std::make_shared<PlanFlags>();
  AddShapeFlags(app, &flags->shape);
  app->add_option("--direction", flags->direction, "forward or backward (default forward)");
  app->add_flag("--keep-resident", flags->keep_resident,
                "The forward keeps the KV held last, the backward starts from it");
  app->add_option("--output", flags->output, "File (default: standard output)");
  AddFormatFlag(app, &flags->format);
  return [flags] {
    const absl::StatusOr<std::string> text = Plan(*flags);
    return text.ok() ? WriteText(flags->output, *text) : Fail(text.status());
  };
}

}  // namespace annulus::cli
