// SPDX-License-Identifier: Apache-2.0
#include "kernels/reference/error_metrics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace annulus::kernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double AbsDifference(double got, double want) {
  if (got == want || (std::isnan(got) && std::isnan(want))) return 0.0;
  const double difference = std::fabs(got - want);
  return std::isfinite(difference) ? difference : kInfinity;
}

}  // namespace

double RelativeRmse(std::span<const float> got, std::span<const double> want) {
  if (got.size() != want.size()) return kInfinity;
  double error = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double difference = AbsDifference(got[i], want[i]);
    error += difference * difference;
    if (std::isfinite(want[i])) norm += want[i] * want[i];
  }
  if (error == 0.0) return 0.0;
  return norm == 0.0 ? kInfinity : std::sqrt(error / norm);
}

double MaxAbsError(std::span<const float> got, std::span<const double> want) {
  if (got.size() != want.size()) return kInfinity;
  double worst = 0.0;
  for (size_t i = 0; i < got.size(); ++i) {
    worst = std::max(worst, AbsDifference(got[i], want[i]));
  }
  return worst;
}

}  // namespace annulus::kernels
