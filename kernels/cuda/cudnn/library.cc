// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn/library.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"

namespace annulus::kernels::cuda {
namespace {

constexpr char kAdvice[] =
    "; install cuDNN 9 for this CUDA, or name its folder in LD_LIBRARY_PATH, or take another "
    "provider";

template <typename Function>
bool Find(void* file, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(file, name));
  return *function != nullptr;
}

}  // namespace

std::string VersionText(size_t version) {
  return absl::StrCat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

absl::Status CudnnLibrary::ToStatus(cudnnStatus_t status, absl::string_view what) const {
  if (status == CUDNN_STATUS_SUCCESS) return absl::OkStatus();
  char reason[512] = "";
  GetLastErrorString(reason, sizeof(reason));
  const std::string text = absl::StrCat(what, ": ", GetErrorString(status), ": ", reason);
  const int kind = static_cast<int>(status) / 1000 * 1000;
  if (kind == CUDNN_STATUS_NOT_SUPPORTED) return absl::InvalidArgumentError(text);
  return absl::InternalError(text);
}

absl::StatusOr<CudnnLibrary> LoadCudnn(const char* file) {
  void* loaded = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (loaded == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("provider cudnn: ", dlerror(), kAdvice));
  }
  CudnnLibrary library = {};
  const bool whole =
      Find(loaded, "cudnnGetVersion", &library.GetVersion) &&
      Find(loaded, "cudnnGetErrorString", &library.GetErrorString) &&
      Find(loaded, "cudnnGetLastErrorString", &library.GetLastErrorString) &&
      Find(loaded, "cudnnCreate", &library.Create) &&
      Find(loaded, "cudnnDestroy", &library.Destroy) &&
      Find(loaded, "cudnnSetStream", &library.SetStream) &&
      Find(loaded, "cudnnBackendCreateDescriptor", &library.BackendCreateDescriptor) &&
      Find(loaded, "cudnnBackendDestroyDescriptor", &library.BackendDestroyDescriptor) &&
      Find(loaded, "cudnnBackendFinalize", &library.BackendFinalize) &&
      Find(loaded, "cudnnBackendSetAttribute", &library.BackendSetAttribute) &&
      Find(loaded, "cudnnBackendGetAttribute", &library.BackendGetAttribute) &&
      Find(loaded, "cudnnBackendExecute", &library.BackendExecute);
  const size_t version = library.GetVersion == nullptr ? 0 : library.GetVersion();
  if (!whole || version < kCudnnVersionMin) {
    return absl::InvalidArgumentError(
        absl::StrCat("provider cudnn: ", file, " is version ", VersionText(version), ", expected ",
                     VersionText(kCudnnVersionMin), " or later", kAdvice));
  }
  return library;
}

}  // namespace annulus::kernels::cuda
