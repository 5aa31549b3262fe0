// SPDX-License-Identifier: Apache-2.0
#pragma once

// A compute device apart from the host, for tests without one: the CPU kernels behind addresses
// that the host cannot touch and streams that run later.
//
// - Memory is mapped twice, without any right where its address is given out and readable under an
//   alias that only the device knows: whoever touches device memory on the host faults.
// - Work runs on the stream's own thread and as late as it may, once somebody waits for an event
//   behind it: whoever forgets to wait reads what was there before, every time.
// - Kernels refuse the host's memory; copies tell the two apart.
// - Memory is exported as a descriptor and imported from one, between devices of one process or of
//   several.

#include <cstdint>

#include "kernels/compute_plugin.h"

namespace annulus::testing_support {

// Four devices, ordinals 0 to 3, bus ids "0000:00:00.0" to "0000:03:00.0".
const annulusComputeV1* ApartPlugin();

// What the devices of this process did and hold; any thread.
struct ApartCounts {
  int64_t copies = 0;
  int64_t kernels = 0;
  int64_t allocations = 0;  // alive
  int64_t pinned = 0;       // ranges of host memory, alive
  int64_t imported = 0;     // alive
};
ApartCounts CountApart();

// Has the attention after so many more fail as a broken device does; -1: none.
void FailApartAttention(int64_t after);

// Test access to device memory, past every stream: for clients that own some.
void ReadApart(const void* device, void* host, size_t bytes);
void WriteApart(void* device, const void* host, size_t bytes);

}  // namespace annulus::testing_support
