// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/trace/trace.h"

namespace annulus::trace {

// The Chrome trace event format, as ui.perfetto.dev and chrome://tracing open it: a process per
// rank, and in it a track each for compute, waits, receives and sends, by ring where there are two.
// Times are microseconds since the trace's first op; "args" carry step, level, peer, bytes and
// label. Title, metadata and overlap stand in "otherData", with this schema.
inline constexpr char kTraceSchema[] = "annulus.trace.v1";

std::string ToChromeTrace(const Trace& trace);

// Limits of what ParseChromeTrace takes.
inline constexpr size_t kTraceBytesMax = size_t{64} << 20;
inline constexpr int kTraceRanksMax = 4096;

// A trace that ToChromeTrace wrote; times then count from its first op. Events of other origin are
// passed over. INVALID_ARGUMENT: not JSON, too large or too deep, not of this schema, an event with
// a field missing or wrong; says which.
absl::StatusOr<Trace> ParseChromeTrace(std::string_view json);

absl::Status WriteChromeTrace(const std::string& path, const Trace& trace);
absl::StatusOr<Trace> ReadChromeTrace(const std::string& path);

}  // namespace annulus::trace
