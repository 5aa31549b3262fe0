// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "server/ring/plan.h"

namespace annulus::ring {

// SHA-256 in lower-case hex.
std::string Sha256Hex(absl::string_view bytes);

// The name of a plan: the SHA-256 of its canonical JSON (plan_json.h) without the field `digest`.
std::string PlanDigest(const Plan& plan);

}  // namespace annulus::ring
