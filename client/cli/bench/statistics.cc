// SPDX-License-Identifier: Apache-2.0
#include "client/cli/bench/statistics.h"

#include <algorithm>
#include <cstddef>

namespace annulus::cli::bench {

Spread SpreadOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  return {values.front(), median, values.back()};
}

}  // namespace annulus::cli::bench
