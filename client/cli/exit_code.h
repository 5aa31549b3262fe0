// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"

namespace annulus::cli {

enum ExitCode {
  kDone = 0,
  kVerificationFailed = 1,
  kUsage = 2,    // a flag, a file or a shape; nothing was run
  kRefused = 3,  // the service said no
  kFault = 4,    // something broke while it ran
};

// Marks an error as the user's input, whatever its code.
absl::Status UsageError(const absl::Status& status);
absl::Status UsageError(const std::string& message);

// OK: kDone. Marked as usage: kUsage. INVALID_ARGUMENT, FAILED_PRECONDITION, RESOURCE_EXHAUSTED,
// UNIMPLEMENTED, NOT_FOUND, PERMISSION_DENIED, ... and a lack of workers: kRefused. Else kFault.
ExitCode ExitCodeFor(const absl::Status& status);

// "annulus: <message>" and what is known of rank, worker, step and peer, to stderr; returns the
// exit code.
int Fail(const absl::Status& status);

}  // namespace annulus::cli
