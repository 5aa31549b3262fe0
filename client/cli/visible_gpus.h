// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace annulus::cli {

// How many GPUs a CUDA program started from here sees: those that CUDA_VISIBLE_DEVICES lists, else
// the machine's. `visible`: that variable, null where it is not set; `devices`: the folder of the
// machine's devices.
int VisibleGpus(const char* visible, const std::string& devices);
int VisibleGpus();

}  // namespace annulus::cli
