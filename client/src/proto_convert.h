// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "annulus/types.h"
#include "annulus/v1/coordinator.pb.h"
#include "annulus/v1/worker.pb.h"
#include "client/src/job.h"
#include "server/ring/plan.h"

namespace annulus::client {

v1::Dtype ToProto(DataType dtype);
v1::EnsureGroupRequest ToProto(const GroupOptions& options);
v1::PlanSpec ToProto(const ring::Spec& spec);
GroupInfo FromProto(const v1::Group& group);

// Everything of the request but its fence, session and tensors.
v1::AttendRequest ToProto(const Job& job, const std::string& plan_digest);
// Where the tensor of this role goes in a request.
v1::TensorRef* MutableRef(v1::AttendRequest* request, Role role);
// Shape and tokens; the location is the data plane's.
void FillRef(const TensorView& view, const ring::TokenRanges& tokens, v1::TensorRef* ref);

// Timing, steps and timeline of one rank.
void FillReport(const v1::AttendResponse& response, RankReport* report);

ring::Layout ToRing(Layout layout);
ring::Mask ToRing(const Mask& mask);

}  // namespace annulus::client
