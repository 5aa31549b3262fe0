// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the handles of the C table are.

#include <memory>

#include "kernels/compute_plugin.h"
#include "kernels/cuda/cudnn/provider.h"
#include "kernels/cuda/driver.h"
#include "kernels/cuda/hopper_plan.h"

struct annulusDevice {
  std::unique_ptr<annulus::kernels::cuda::Driver> driver;
  annulus::kernels::cuda::Provider provider;
  int blocks_max;  // of a persistent grid: the multiprocessors that are not spared
  std::unique_ptr<annulus::kernels::cuda::CudnnProvider> cudnn;  // null: not asked for
};

struct annulusStream {
  annulus::kernels::cuda::Driver* driver;
  annulus::kernels::cuda::Driver::Stream stream;
  annulusDevice* device;
};

struct annulusEvent {
  annulus::kernels::cuda::Driver* driver;
  annulus::kernels::cuda::Driver::Event event;
  bool recorded = false;
};
