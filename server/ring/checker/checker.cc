// SPDX-License-Identifier: Apache-2.0
#include "server/ring/checker/checker.h"

#include "server/base/status_macros.h"
#include "server/ring/checker/view.h"

namespace annulus::ring {

absl::Status CheckPlan(const Plan& plan) {
  ANNULUS_RETURN_IF_ERROR(CheckShape(plan));
  ANNULUS_ASSIGN_OR_RETURN(const PlanView view, MakePlanView(plan));
  ANNULUS_RETURN_IF_ERROR(CheckOwnership(view));
  ANNULUS_RETURN_IF_ERROR(CheckKvSlots(view));
  ANNULUS_RETURN_IF_ERROR(CheckGradients(view));
  return CheckCoverage(view);
}

}  // namespace annulus::ring
