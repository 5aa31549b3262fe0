// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "client/trace/trace.h"

namespace annulus::trace {

// A picture of the trace, time from left to right, on white: per rank a bar of what it computes,
// step by step, with the time it stood still hatched in red; beneath, the hops it received, inner
// and outer ring apart; at the right the share of communication that was hidden. Bars of less than
// a pixel are drawn together. Text outside printable ASCII is shown as "?".
std::string RenderSvg(const Trace& trace);

}  // namespace annulus::trace
