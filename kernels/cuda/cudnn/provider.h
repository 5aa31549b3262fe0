// SPDX-License-Identifier: Apache-2.0
#pragma once

// attend and attend_backward with cuDNN where it can: a call is split (split.h), each piece of
// cuDNN's is computed on its own and added to what the call accumulates, and the rest goes to the
// portable kernels. README.md has the table of what goes where.

#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/compute_plugin.h"
#include "kernels/cuda/cudnn/cudnn_api.h"
#include "kernels/cuda/cudnn/plan_cache.h"
#include "kernels/cuda/cudnn/scratch.h"
#include "kernels/cuda/cudnn/split.h"
#include "kernels/cuda/driver.h"

namespace annulus::kernels::cuda {

// Thread safe: calls run one at a time, and return before the work is done. The first call of a
// shape builds its plan and may allocate; later ones do neither.
class CudnnProvider {
 public:
  // See OpenCudnn for failures. The driver must outlive the provider. deterministic: the backward
  // is left to the portable kernels, since that of cuDNN adds up in any order.
  static absl::StatusOr<std::unique_ptr<CudnnProvider>> Open(Driver* driver, bool deterministic);

  std::string version() const { return api_->version(); }

  // Arguments are valid (kernels/validate.h). INVALID_ARGUMENT: a piece of cuDNN's for which the
  // library has no kernel; RESOURCE_EXHAUSTED: no scratch memory; INTERNAL: a failure. What was
  // enqueued before a failure runs.
  absl::Status Attend(const annulusAttendArgs& args, Driver::Stream stream);
  absl::Status AttendBackward(const annulusAttendBackwardArgs& args, Driver::Stream stream);

  // Before the stream is destroyed; its work is done.
  void Release(Driver::Stream stream);

 private:
  CudnnProvider(Driver* driver, std::unique_ptr<CudnnApi> api, bool deterministic)
      : driver_(driver),
        deterministic_(deterministic),
        api_(std::move(api)),
        plans_(api_.get()),
        scratch_(driver) {}

  absl::Status AttendPiece(const annulusAttendArgs& args, const CudnnPiece& piece,
                           Driver::Stream stream);
  absl::Status BackwardPiece(const annulusAttendBackwardArgs& args, const CudnnPiece& piece,
                             Driver::Stream stream);

  Driver* const driver_;
  const bool deterministic_;
  std::mutex mutex_;
  const std::unique_ptr<CudnnApi> api_;
  PlanCache plans_;
  Scratch scratch_;
};

}  // namespace annulus::kernels::cuda
