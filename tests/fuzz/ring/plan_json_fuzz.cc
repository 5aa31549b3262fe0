// SPDX-License-Identifier: Apache-2.0
// Whatever the text: the parser answers, what it takes comes back the same from its own writer, and
// the checker, and what is built on checked plans, stand up to it.
#include <cstdint>
#include <cstdlib>

#include "absl/strings/string_view.h"
#include "server/ring/checker/checker.h"
#include "server/ring/plan_json.h"
#include "server/ring/plan_text.h"
#include "server/ring/slots.h"

namespace ring = annulus::ring;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const ring::PlanJsonOptions any_digest{.verify_digest = false};
  const auto plan = ring::ParsePlanJson(text, any_digest);
  if (!plan.ok()) return 0;
  const auto again = ring::ParsePlanJson(ring::PlanToJson(*plan), any_digest);
  if (!again.ok() || *again != *plan) std::abort();
  if (!ring::CheckPlan(*plan).ok()) return 0;
  if (ring::PlanToText(*plan).empty()) std::abort();
  for (int rank = 0; rank < plan->context_parallel_size; ++rank) ring::SlotTable(*plan, rank);
  return 0;
}
