// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "client/cli/flags.h"
#include "client/src/coordinator_link.h"

namespace annulus::cli {

// Flags of the commands that ask a coordinator one question.
struct CoordinatorFlags {
  std::string coordinator;
  Format format = Format::kText;
};

inline constexpr absl::Duration kQuestionTimeout = absl::Seconds(5);

void AddCoordinatorFlags(CLI::App* app, CoordinatorFlags* flags);

}  // namespace annulus::cli
