// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/compute_plugin.h"

namespace annulus::kernels {

// The CPU device as a compute plugin, for linking in statically. Static storage, never null.
//
// Every call runs to its end before it returns; streams only order, events only stamp the time.
// Calls that share a device and attend take turns. supports: f32, bf16 and f16, head sizes 16 to
// 256 in steps of 8, any number of query heads per KV head. Row spans need not be long, but key
// spans whose positions rise from one to the next are worked on together, others are not.
const annulusComputeV1* CpuPlugin();

}  // namespace annulus::kernels
