// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "server/ring/plan.h"

namespace annulus::ring {

// Proves that whoever executes the plan as plan.h says gets the exact attention, or gradient,
// whatever the timing of the transfers within their steps. Knows nothing of how plans are
// generated:
//
//   shape        sizes, names, steps and ranges within their bounds; a transfer is due after it is
//   posted ownership    every query and every key has exactly one owner query-owner  a compute
//   attends queries of its own rank only mask-case    a compute's case is that of its rectangle,
//   and never empty coverage     every visible (query, key) pair is computed exactly once content
//   a slot holds the tokens that a compute or transfer reads, when it reads them overwrite nothing
//   is written to a slot while a compute or transfer may still read it, and nothing
//                reads or writes a slot while it is being received
//   resident     what is kept for the backward stands intact at the end; what was kept is never
//   written gradient     every contribution to dK, dV reaches the gradient_home of its owner
//   exactly once
//
// Sends and receives match by construction, and cannot deadlock: both ends post in the same step
// without blocking and wait in a later one. The digest is not looked at.
//
// InvalidArgument: the first broken rule, with rank, step and slot. Works in time near linear in
// the plan's operations; a plan of unknown origin that would cost far more is refused under the
// rule `complexity`.
absl::Status CheckPlan(const Plan& plan);

}  // namespace annulus::ring
