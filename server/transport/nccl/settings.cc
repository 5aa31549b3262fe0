// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/settings.h"

#include <cstdlib>

namespace annulus::transport::nccl {
namespace {

double FromVariable(const char* name, double low, double high, double otherwise) {
  const char* const text = std::getenv(name);
  if (text == nullptr) return otherwise;
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  return end != text && *end == '\0' && value >= low && value <= high ? value : otherwise;
}

}  // namespace

Settings Settings::FromEnvironment() {
  Settings settings;
  settings.max_ctas =
      static_cast<int>(FromVariable("ANNULUS_NCCL_MAX_CTAS", 1, 64, settings.max_ctas));
  settings.network_channels =
      static_cast<int>(FromVariable("ANNULUS_NCCL_NET_CHANNELS", 1, 32, settings.network_channels));
  settings.abort_ns =
      static_cast<int64_t>(1e9 * FromVariable("ANNULUS_NCCL_ABORT_SECONDS", 0.01, 60,
                                              static_cast<double>(settings.abort_ns) / 1e9));
  settings.profiler = FromVariable("ANNULUS_NCCL_PROFILER", 0, 1, 0) == 1;
  return settings;
}

}  // namespace annulus::transport::nccl
