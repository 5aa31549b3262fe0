// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "client/cli/flags.h"
#include "client/cli/run_result.h"
#include "client/trace/trace.h"

namespace annulus::cli {

// The timelines of the best repetition on the workers' common clock, forward then backward.
trace::Trace TraceOf(const RunFlags& flags, const RunResult& result);

}  // namespace annulus::cli
