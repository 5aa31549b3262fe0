// SPDX-License-Identifier: Apache-2.0
// In the place of library.cc where the headers of cuDNN were not found when this was built.
#include "kernels/cuda/cudnn/cudnn_api.h"

namespace annulus::kernels::cuda {

absl::StatusOr<std::unique_ptr<CudnnApi>> OpenCudnn() {
  return absl::InvalidArgumentError(
      "provider cudnn: this plugin was built without the headers of cuDNN (9.16 or later); build "
      "it "
      "where cmake finds cudnn_graph.h (-DANNULUS_CUDNN_INCLUDE_DIR=...), or take another "
      "provider");
}

}  // namespace annulus::kernels::cuda
