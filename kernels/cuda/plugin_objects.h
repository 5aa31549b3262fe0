// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the handles of the C table are.

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/compute_plugin.h"
#include "kernels/cuda/cudnn/provider.h"
#include "kernels/cuda/driver.h"
#include "kernels/cuda/hopper_plan.h"

struct annulusDevice {
  std::unique_ptr<annulus::kernels::cuda::Driver> driver;
  annulus::kernels::cuda::Provider provider;
  int blocks_max;  // of a persistent grid: the multiprocessors that are not spared
  bool deterministic;
  std::unique_ptr<annulus::kernels::cuda::CudnnProvider> cudnn;  // null: not asked for
};

struct annulusStream {
  annulus::kernels::cuda::Driver* driver;
  annulus::kernels::cuda::Driver::Stream stream;
  annulusDevice* device;
  // Of the deterministic backward pass: zero between its launches, which this stream keeps apart.
  // What was too small lies here until the stream is gone, since launches may still use it.
  std::vector<void*> turns;
  int64_t turns_count = 0;  // words of the last
};

struct annulusEvent {
  annulus::kernels::cuda::Driver* driver;
  annulus::kernels::cuda::Driver::Event event;
  bool recorded = false;
};
