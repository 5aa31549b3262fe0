// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "client/cli/flags.h"
#include "client/cli/run_result.h"

namespace annulus::cli {

// The report as JSON, schema "annulus.report.v1". Seconds are means over the ranks, sums of forward
// and backward; bytes are sums over the ranks; peak_bytes_per_worker is the largest. Errors are
// null where nothing was verified. Errors that are not
// numbers are the words "inf" and "nan".
std::string ReportJson(const RunFlags& flags, const RunResult& result);

// What was asked for: ring, tensors, mask and options, as the report has it under "shape".
nlohmann::ordered_json ShapeJson(const RunFlags& flags, const Problem& problem);

// {"place": "device", "devices": "..."} or {"place": "host", "reason": "..."}.
nlohmann::ordered_json MemoryJson(const MemoryUsed& memory);

// What is about to run, in one or two lines.
std::string HeaderText(const RunFlags& flags, const Problem& problem);

// Where the tensors lay, in a line; nothing where that goes without saying.
std::string MemoryText(const MemoryUsed& memory);

// The result for people: steps, overlap, bytes, verification, time.
std::string ReportText(const RunFlags& flags, const RunResult& result);

}  // namespace annulus::cli
