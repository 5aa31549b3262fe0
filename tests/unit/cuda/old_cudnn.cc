// SPDX-License-Identifier: Apache-2.0
// A library that says it is a cuDNN from long ago.
#include <cstddef>

extern "C" __attribute__((visibility("default"))) size_t cudnnGetVersion();
size_t cudnnGetVersion() { return 90102; }
