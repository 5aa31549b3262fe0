// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

namespace annulus::cli::bench {

struct Spread {
  double min = 0;
  double median = 0;
  double max = 0;
};

// Of at least one value. The median of an even number is the mean of the two in the middle.
Spread SpreadOf(std::vector<double> values);

}  // namespace annulus::cli::bench
