// SPDX-License-Identifier: Apache-2.0
#include "client/cli/device_memory/device_shard.h"

#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "server/base/status_macros.h"

namespace annulus::cli {
namespace {

constexpr size_t kAlignment = 256;

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceShard>> DeviceShard::Create(ComputeDevice* device,
                                                                 const Problem& problem,
                                                                 bool backward,
                                                                 client::RankShard rows) {
  std::unique_ptr<DeviceShard> shard(new DeviceShard(device, backward, std::move(rows)));
  ANNULUS_RETURN_IF_ERROR(shard->Allocate(problem));
  return shard;
}

absl::Status DeviceShard::Allocate(const Problem& p) {
  using client::DataType;
  using client::TensorView;
  const TensorView queries{nullptr, p.dtype, p.batch, rows_.q_rows(), p.query_heads, p.head_dim};
  const TensorView keys{nullptr, p.dtype, p.batch, rows_.kv_rows(), p.kv_heads, p.head_dim};
  views_ = {.q = queries, .k = keys, .v = keys, .o = queries, .lse = queries};
  views_.lse.dtype = DataType::kF32;
  views_.lse.head_dim = 0;
  std::vector<TensorView*> all{&views_.q, &views_.k, &views_.v, &views_.o, &views_.lse};
  if (backward_) {
    views_.o.dtype = DataType::kF32;
    views_.d_o = views_.dq = queries;
    views_.dk = views_.dv = keys;
    all.insert(all.end(), {&views_.d_o, &views_.dq, &views_.dk, &views_.dv});
  }
  std::vector<size_t> offsets;
  for (const TensorView* view : all) {
    offsets.push_back(bytes_);
    bytes_ += (view->bytes() + kAlignment - 1) / kAlignment * kAlignment;
  }
  bytes_ = std::max(bytes_, kAlignment);  // a rank may own no row at all
  ANNULUS_ASSIGN_OR_RETURN(ComputeDevice::Memory memory, device_->Allocate(bytes_));
  for (size_t i = 0; i < all.size(); ++i) {
    all[i]->data = static_cast<char*>(memory.get()) + offsets[i];
  }
  memory_ = std::make_unique<ComputeDevice::Memory>(std::move(memory));
  return absl::OkStatus();
}

absl::Status DeviceShard::CopyRows(const client::TensorView& shard, const client::TensorView& whole,
                                   const std::vector<client::TokenRange>& ranges, bool to_shard) {
  if (shard.rows == 0 || shard.batch == 0) return absl::OkStatus();
  const size_t row_bytes = shard.bytes() / static_cast<size_t>(shard.batch * shard.rows);
  auto* own = static_cast<char*>(shard.data);
  for (int64_t batch = 0; batch < shard.batch; ++batch) {
    for (const client::TokenRange& range : ranges) {
      const auto count = static_cast<size_t>(range.count());
      char* const theirs = static_cast<char*>(whole.data) +
                           static_cast<size_t>(batch * whole.rows + range.begin) * row_bytes;
      const bool together = range.stride == 1;
      annulusCopyArgs args{};
      args.struct_size = sizeof(args);
      args.to = to_shard ? own : theirs;
      args.from = to_shard ? theirs : own;
      args.row_bytes = together ? count * row_bytes : row_bytes;
      args.rows = together ? 1 : count;
      const size_t spread = static_cast<size_t>(range.stride) * row_bytes;
      args.to_pitch = to_shard ? row_bytes : spread;
      args.from_pitch = to_shard ? spread : row_bytes;
      if (count > 0) ANNULUS_RETURN_IF_ERROR(device_->Copy(args));
      own += count * row_bytes;
    }
  }
  return absl::OkStatus();
}

absl::Status DeviceShard::Upload(const ProblemTensors& whole) {
  ANNULUS_RETURN_IF_ERROR(CopyRows(views_.q, whole.q, rows_.q, true));
  ANNULUS_RETURN_IF_ERROR(CopyRows(views_.k, whole.k, rows_.kv, true));
  ANNULUS_RETURN_IF_ERROR(CopyRows(views_.v, whole.v, rows_.kv, true));
  return backward_ ? CopyRows(views_.d_o, whole.d_o, rows_.q, true) : absl::OkStatus();
}

absl::Status DeviceShard::Download(const ProblemTensors& whole) {
  ANNULUS_RETURN_IF_ERROR(CopyRows(views_.o, whole.o_exact, rows_.q, false));
  ANNULUS_RETURN_IF_ERROR(CopyRows(views_.lse, whole.lse, rows_.q, false));
  if (!backward_) return absl::OkStatus();
  ANNULUS_RETURN_IF_ERROR(CopyRows(views_.dq, whole.dq, rows_.q, false));
  ANNULUS_RETURN_IF_ERROR(CopyRows(views_.dk, whole.dk, rows_.kv, false));
  return CopyRows(views_.dv, whole.dv, rows_.kv, false);
}

absl::StatusOr<client::DeviceRegion> DeviceShard::LeaseTo(client::RankClient* rank) const {
  ANNULUS_ASSIGN_OR_RETURN(const client::DeviceMemoryHandle handle,
                           device_->Export(memory_->get()));
  auto region = rank->LeaseDeviceMemory(memory_->get(), bytes_, handle);
  if (handle.descriptor >= 0) close(handle.descriptor);  // the region has one of its own
  return region;
}

}  // namespace annulus::cli
