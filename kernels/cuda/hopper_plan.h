// SPDX-License-Identifier: Apache-2.0
#pragma once

// From a call's arguments to launches of the kernels of compute capability 9.0, and the choice
// between them and the portable ones. Pure.

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/compute_plugin.h"
#include "kernels/cuda/driver.h"
#include "kernels/cuda/launch_plan.h"
#include "kernels/cuda/sm90/attend_shape.h"
#include "kernels/cuda/sm90/backward_shape.h"
#include "kernels/cuda/tensor_map.h"

namespace annulus::kernels::cuda {

// What the walks of units count to, and the widest head of these kernels.
inline constexpr int64_t kUnitsMax = (int64_t{1} << 31) - 1;
inline constexpr int64_t kHeadDimMaxHopper = 128;

// Which kernels a device uses: annulusComputeOptions.provider.
enum class Provider {
  kAuto,      // sm90 where it runs and takes the call, else portable
  kSm90,      // a forward pass that sm90 does not take is refused
  kPortable,  // the slow twin
  kCudnn,     // cudnn/provider.h, and portable where that does not compute
};

// `name` may be null. INVALID_ARGUMENT for a name that is none, and for kernels that this device
// does not run.
absl::StatusOr<Provider> ParseProvider(const char* name, const DeviceProperties& properties);

// Whether the kernel runs on the device at all.
bool RunsOn(const KernelShape& shape, const DeviceProperties& properties);

// OK, or INVALID_ARGUMENT if what the walks of tiles count does not fit their 31 bits.
absl::Status CheckHopperSpans(const annulusSpan* spans, size_t count);

// OK, or INVALID_ARGUMENT with what the sm90 forward kernels do not take.
absl::Status CheckHopperTakes(const annulusAttendArgs& args);

// Arguments are valid (kernels/validate.h) and taken. The launches lack their maps of q, k and v,
// which are the same for all of them.
struct HopperAttendPlan {
  TensorMapSpec q, k, v;
  std::vector<PlannedLaunch<HopperAttendParams>> launches;
};
// At most `blocks_max` blocks a launch: a block keeps a multiprocessor to itself.
absl::StatusOr<HopperAttendPlan> PlanHopperAttend(const annulusAttendArgs& args, int blocks_max);

// The same for the backward pass. `turns`: words of HopperBackwardParams::turns that the largest
// launch needs.
absl::Status CheckHopperTakes(const annulusAttendBackwardArgs& args);
struct HopperBackwardPlan {
  TensorMapSpec q, d_o, k, v;
  int64_t turns;
  std::vector<PlannedLaunch<HopperBackwardParams>> launches;
};
absl::StatusOr<HopperBackwardPlan> PlanHopperBackward(const annulusAttendBackwardArgs& args,
                                                      int blocks_max);

}  // namespace annulus::kernels::cuda
