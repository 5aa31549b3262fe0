// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "annulus/types.h"

namespace annulus::cli {

// Fills a tensor with N(0,1) rounded to its type. Element i is a function of (seed, name, i) alone,
// so the values do not depend on threads or machines.
void FillNormal(const client::TensorView& tensor, uint64_t seed, const std::string& name);

}  // namespace annulus::cli
