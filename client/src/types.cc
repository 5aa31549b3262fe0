// SPDX-License-Identifier: Apache-2.0
#include "annulus/types.h"

#include <algorithm>
#include <limits>

#include "server/base/fault_info.h"

namespace annulus::client {

size_t DataTypeBytes(DataType dtype) { return dtype == DataType::kF32 ? 4 : 2; }

size_t TensorView::bytes() const {
  if (batch < 0 || rows < 0 || heads < 0 || head_dim < 0) return 0;
  size_t product = DataTypeBytes(dtype);
  const int64_t extents[] = {batch, rows, heads, head_dim == 0 ? 1 : head_dim};
  for (const int64_t extent : extents) {
    if (extent == 0) return 0;
    if (product > std::numeric_limits<int64_t>::max() / static_cast<size_t>(extent)) return 0;
    product *= static_cast<size_t>(extent);
  }
  return product;
}

double Timing::overlap_ratio() const {
  if (comm_seconds <= 0) return 1;
  return std::clamp(1 - exposed_comm_seconds / comm_seconds, 0.0, 1.0);
}

Timing AttendReport::Total() const {
  Timing total;
  for (const RankReport& rank : ranks) {
    const Timing& t = rank.timing;
    total.wall_seconds += t.wall_seconds;
    total.compute_seconds += t.compute_seconds;
    total.comm_seconds += t.comm_seconds;
    total.active_seconds += t.active_seconds;
    total.exposed_comm_seconds += t.exposed_comm_seconds;
    total.exposed_inner_seconds += t.exposed_inner_seconds;
    total.exposed_outer_seconds += t.exposed_outer_seconds;
    total.peer_wait_seconds += t.peer_wait_seconds;
    total.bytes_inner += t.bytes_inner;
    total.bytes_outer += t.bytes_outer;
    total.peak_bytes = std::max(total.peak_bytes, t.peak_bytes);
  }
  const double n = std::max<double>(1, static_cast<double>(ranks.size()));
  for (double* seconds :
       {&total.wall_seconds, &total.compute_seconds, &total.comm_seconds, &total.active_seconds,
        &total.exposed_comm_seconds, &total.exposed_inner_seconds, &total.exposed_outer_seconds,
        &total.peer_wait_seconds}) {
    *seconds /= n;
  }
  return total;
}

std::optional<FaultDetail> GetFaultDetail(const absl::Status& status) {
  const auto info = GetFaultInfo(status);
  if (!info) return std::nullopt;
  return FaultDetail{info->reason, info->metadata};
}

}  // namespace annulus::client
