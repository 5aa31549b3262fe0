// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "annulus/v1/worker.pb.h"
#include "server/worker/engine.h"

namespace annulus::rpc {

// annulus.v1.AttendRequest and AttendResponse <-> the engine's types. Thread safe, no state.

// Everything that can be judged without the plan is judged here, so that the engine sees bounded
// values only: names, shapes and strides that cannot overflow, finite numbers, known enums, which
// tensors a forward and a backward need. `deadline_ns` and `cancelled` of the result are the
// caller's to set; CallTimeout says what the request asks for.
//
// INVALID_ARGUMENT names the field. UNIMPLEMENTED for what the protocol reserves and this version
// does not do: another base of LSE, position ids.
absl::StatusOr<worker::AttendCall> AttendCallFromProto(const v1::AttendRequest& request);

// The request's own limit in seconds: finite, > 0, at most a year; nothing where it names none.
// INVALID_ARGUMENT else.
absl::StatusOr<std::optional<double>> CallTimeout(const v1::AttendRequest& request);

// Equal for two requests that ask for the same thing: all but what a retry may change (term, epoch,
// incarnation, step and hop of the fence, the timeout). Valid within this process only.
uint64_t AttendContentHash(const v1::AttendRequest& request);

// Answers with the request's own fence.
v1::AttendResponse AttendResponseToProto(const worker::AttendAnswer& answer, const v1::Fence& fence,
                                         bool with_timeline);

// Bytes of the tensors that the call uses in place, in leased regions.
double RegionBytes(const worker::AttendCall& call);

}  // namespace annulus::rpc
