// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/memory_calls.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/plugin_objects.h"
#include "kernels/plugin_border.h"
#include "server/base/status_macros.h"

namespace annulus::kernels::cuda {
namespace {

absl::Status CheckCopy(const annulusCopyArgs& args) {
  ANNULUS_RETURN_IF_ERROR(RequireHandle("to", args.to));
  ANNULUS_RETURN_IF_ERROR(RequireHandle("from", args.from));
  const bool apart = args.to_pitch >= args.row_bytes && args.from_pitch >= args.row_bytes;
  if (args.rows == 1 || apart) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("rows of ", args.row_bytes, " bytes: to_pitch ",
                                                 args.to_pitch, " and from_pitch ", args.from_pitch,
                                                 ", expected at least as many"));
}

}  // namespace

annulusComputeStatus CopyRows(annulusStream* stream, const annulusCopyArgs* given) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    ANNULUS_ASSIGN_OR_RETURN(const annulusCopyArgs args,
                             ReadStruct("args", given, sizeof(annulusCopyArgs)));
    if (args.rows == 0 || args.row_bytes == 0) return absl::OkStatus();
    ANNULUS_RETURN_IF_ERROR(CheckCopy(args));
    return stream->driver->Copy(args, stream->stream);
  });
}

annulusComputeStatus RegisterHost(annulusDevice* device, void* memory, size_t bytes) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("device", device));
    ANNULUS_RETURN_IF_ERROR(RequireHandle("memory", memory));
    return device->driver->RegisterHost(memory, bytes);
  });
}

annulusComputeStatus UnregisterHost(annulusDevice* device, void* memory) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("device", device));
    ANNULUS_RETURN_IF_ERROR(RequireHandle("memory", memory));
    return device->driver->UnregisterHost(memory);
  });
}

annulusComputeStatus ExportMemory(annulusDevice* device, const void* memory,
                                  annulusMemoryHandle* handle) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("device", device));
    ANNULUS_RETURN_IF_ERROR(RequireHandle("memory", memory));
    ANNULUS_RETURN_IF_ERROR(RequireStruct("handle", handle,
                                          handle == nullptr ? 0 : handle->struct_size,
                                          sizeof(annulusMemoryHandle)));
    ANNULUS_ASSIGN_OR_RETURN(const annulusMemoryHandle made, device->driver->Export(memory));
    return WriteStruct("handle", made, sizeof(annulusMemoryHandle), handle);
  });
}

annulusComputeStatus ImportMemory(annulusDevice* device, const annulusMemoryHandle* given,
                                  void** memory) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("device", device));
    ANNULUS_RETURN_IF_ERROR(RequireHandle("memory", memory));
    ANNULUS_ASSIGN_OR_RETURN(const annulusMemoryHandle handle,
                             ReadStruct("handle", given, sizeof(annulusMemoryHandle)));
    if (handle.offset >= handle.bytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "handle: offset ", handle.offset, " in an allocation of ", handle.bytes, " bytes"));
    }
    ANNULUS_ASSIGN_OR_RETURN(*memory, device->driver->Import(handle));
    return absl::OkStatus();
  });
}

annulusComputeStatus ReleaseMemory(annulusDevice* device, void* memory) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("device", device));
    ANNULUS_RETURN_IF_ERROR(RequireHandle("memory", memory));
    return device->driver->Release(memory);
  });
}

}  // namespace annulus::kernels::cuda
