// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <mutex>

// The machine that the NVML of fake_nvml.cc tells of. A test gets a new one from the library's
// symbol NewFakeNvml; the one before is gone then.
namespace annulus::machine {

inline constexpr int kFakeGpus = 4;

struct FakeNvml {
  int gpus = kFakeGpus;
  unsigned buses[kFakeGpus] = {0x1b, 0x43, 0x9d, 0xc3};
  // Results of NVML's calls, 0: success.
  int init_result = 0;
  int find_result[kFakeGpus] = {};
  int access_result[kFakeGpus] = {};  // of the query about that GPU as the peer
  // nvmlGpuP2PStatus_t from the first to the second: reading, writing, over NVLink.
  int access[3][kFakeGpus][kFakeGpus] = {};
  unsigned mig = 0;
  const char* uuid = "GPU-0";
  std::mutex mutex;
  std::condition_variable changed;
  // Guarded by mutex:
  bool hangs = false;  // nvmlInit returns when this turns false
  int inits = 0;       // that succeeded
  int shutdowns = 0;
};

using NewFakeNvmlFunction = FakeNvml*();

}  // namespace annulus::machine
