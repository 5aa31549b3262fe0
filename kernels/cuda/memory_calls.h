// SPDX-License-Identifier: Apache-2.0
#pragma once

// The entries of the C table that concern memory beyond one process or one side: see
// kernels/compute_plugin.h, abi_minor 2. Checks of arguments; the driver does the work.

#include <cstddef>

#include "kernels/compute_plugin.h"

namespace annulus::kernels::cuda {

annulusComputeStatus CopyRows(annulusStream* stream, const annulusCopyArgs* args);
annulusComputeStatus RegisterHost(annulusDevice* device, void* memory, size_t bytes);
annulusComputeStatus UnregisterHost(annulusDevice* device, void* memory);
annulusComputeStatus ExportMemory(annulusDevice* device, const void* memory,
                                  annulusMemoryHandle* handle);
annulusComputeStatus ImportMemory(annulusDevice* device, const annulusMemoryHandle* handle,
                                  void** memory);
annulusComputeStatus ReleaseMemory(annulusDevice* device, void* memory);

}  // namespace annulus::kernels::cuda
