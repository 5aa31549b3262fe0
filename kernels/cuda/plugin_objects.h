// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the handles of the C table are.

#include <memory>

#include "kernels/compute_plugin.h"
#include "kernels/cuda/driver.h"

struct annulusDevice {
  std::unique_ptr<annulus::kernels::cuda::Driver> driver;
};

struct annulusStream {
  annulus::kernels::cuda::Driver* driver;
  annulus::kernels::cuda::Driver::Stream stream;
};

struct annulusEvent {
  annulus::kernels::cuda::Driver* driver;
  annulus::kernels::cuda::Driver::Event event;
  bool recorded = false;
};
