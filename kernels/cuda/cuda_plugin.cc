// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cuda_plugin.h"

#include <time.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/cudnn/provider.h"
#include "kernels/cuda/hopper_plan.h"
#include "kernels/cuda/kernel_params.h"
#include "kernels/cuda/launch_plan.h"
#include "kernels/cuda/memory_calls.h"
#include "kernels/cuda/plugin_objects.h"
#include "kernels/plugin_border.h"
#include "kernels/tensor_view.h"
#include "kernels/validate.h"
#include "server/base/status_macros.h"

namespace annulus::kernels {
namespace {

using cuda::Driver;
using cuda::KernelId;

constexpr int kCapabilityMajorMin = 8;
// A wait looks often at first and then every 50 us: a hop takes longer than that.
constexpr int kSpins = 2000;
constexpr int64_t kPollNs = 50'000;

int64_t NowNs() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

absl::Status CheckDevice(int ordinal, const cuda::DeviceProperties& properties) {
  if (properties.capability_major < kCapabilityMajorMin) {
    return absl::InvalidArgumentError(
        absl::StrCat("device ", ordinal, ": ", properties.name, " has compute capability ",
                     properties.capability_major, ".", properties.capability_minor, ", expected ",
                     kCapabilityMajorMin, ".0 or later"));
  }
  for (int id = 0; id < cuda::kKernelCount; ++id) {
    const cuda::KernelShape& shape = cuda::ShapeOf(static_cast<KernelId>(id));
    if (!cuda::RunsOn(shape, properties)) continue;
    if (static_cast<int64_t>(shape.shared_bytes) > properties.shared_bytes_block) {
      return absl::InvalidArgumentError(absl::StrCat(
          "device ", ordinal, ": ", properties.name, " has ", properties.shared_bytes_block,
          " bytes of shared memory a block, expected ", shape.shared_bytes));
    }
  }
  return absl::OkStatus();
}

// Only persistent grids, those of compute capability 9.0, leave units alone.
absl::Status CheckSpareUnits(int spare_units, cuda::Provider provider,
                             const cuda::DeviceProperties& properties) {
  const bool persistent = provider != cuda::Provider::kPortable &&
                          cuda::RunsOn(cuda::ShapeOf(KernelId::kAttendHopperBf16_128), properties);
  if (spare_units > 0 && !persistent) {
    return absl::InvalidArgumentError(absl::StrCat("spare_units ", spare_units,
                                                   ", expected 0: the portable kernels, which ",
                                                   properties.name, " would run, take every unit"));
  }
  if (spare_units >= 0 && spare_units < properties.multiprocessors) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("spare_units ", spare_units, ", expected 0 to ",
                                                 properties.multiprocessors - 1));
}

// Null for another provider.
absl::StatusOr<std::unique_ptr<cuda::CudnnProvider>> OpenCudnnProvider(
    const annulusComputeOptions& options, cuda::Provider provider, Driver* driver) {
  if (provider != cuda::Provider::kCudnn) return nullptr;
  if (options.spare_units != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "provider cudnn: spare_units ", options.spare_units,
        ", expected 0: its kernels take every unit; take another provider to leave some"));
  }
  return cuda::CudnnProvider::Open(driver, options.deterministic != 0);
}

annulusComputeStatus Open(const annulusComputeOptions* given, annulusDevice** device) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_ASSIGN_OR_RETURN(
        const annulusComputeOptions options,
        ReadStruct("options", given, offsetof(annulusComputeOptions, provider)));
    ANNULUS_RETURN_IF_ERROR(RequireHandle("device", device));
    ANNULUS_ASSIGN_OR_RETURN(std::unique_ptr<Driver> driver,
                             cuda::OpenDriver(options.device_ordinal));
    ANNULUS_RETURN_IF_ERROR(CheckDevice(options.device_ordinal, driver->properties()));
    const cuda::DeviceProperties& properties = driver->properties();
    ANNULUS_ASSIGN_OR_RETURN(const cuda::Provider provider,
                             cuda::ParseProvider(options.provider, properties));
    ANNULUS_RETURN_IF_ERROR(CheckSpareUnits(options.spare_units, provider, properties));
    const int blocks_max = properties.multiprocessors - options.spare_units;
    ANNULUS_ASSIGN_OR_RETURN(std::unique_ptr<cuda::CudnnProvider> cudnn,
                             OpenCudnnProvider(options, provider, driver.get()));
    *device = new annulusDevice{std::move(driver), provider, blocks_max, options.deterministic != 0,
                                std::move(cudnn)};
    return absl::OkStatus();
  });
}

void Close(annulusDevice* device) { delete device; }

annulusComputeStatus DeviceInfo(annulusDevice* device, annulusDeviceInfo* info) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("device", device));
    const cuda::DeviceProperties& properties = device->driver->properties();
    const std::string text =
        absl::StrCat("cuda: ", properties.name, ", compute capability ",
                     properties.capability_major, ".", properties.capability_minor,
                     device->cudnn == nullptr ? "" : ", cuDNN " + device->cudnn->version());
    annulusDeviceInfo found = {};
    text.copy(found.description, sizeof(found.description) - 1);
    found.memory_bytes = properties.memory_bytes;
    found.compute_units = properties.multiprocessors;
    properties.bus_id.copy(found.bus_id, sizeof(found.bus_id) - 1);
    return WriteStruct("info", found, offsetof(annulusDeviceInfo, bus_id), info);
  });
}

annulusComputeStatus Supports(annulusDevice* device, annulusDtype dtype, int64_t head_dim,
                              int64_t query_heads, int64_t kv_heads) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("device", device));
    return CheckSupports(RawValue(dtype), head_dim, query_heads, kv_heads);
  });
}

annulusComputeStatus Alloc(annulusDevice* device, size_t bytes, void** memory) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("device", device));
    ANNULUS_RETURN_IF_ERROR(RequireHandle("memory", memory));
    ANNULUS_ASSIGN_OR_RETURN(*memory, device->driver->Allocate(std::max<size_t>(bytes, 1)));
    return absl::OkStatus();
  });
}

void Free(annulusDevice* device, void* memory) {
  if (device != nullptr && memory != nullptr) device->driver->Free(memory);
}

annulusComputeStatus StreamCreate(annulusDevice* device, annulusStream** stream) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("device", device));
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    auto made =
        std::make_unique<annulusStream>(annulusStream{device->driver.get(), nullptr, device, {}});
    ANNULUS_ASSIGN_OR_RETURN(made->stream, device->driver->CreateStream());
    *stream = made.release();
    return absl::OkStatus();
  });
}

void StreamDestroy(annulusStream* stream) {
  if (stream == nullptr) return;
  if (stream->device->cudnn != nullptr) stream->device->cudnn->Release(stream->stream);
  stream->driver->DestroyStream(stream->stream);
  for (void* turns : stream->turns) stream->driver->Free(turns);
  delete stream;
}

annulusComputeStatus EventCreate(annulusDevice* device, annulusEvent** event) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("device", device));
    ANNULUS_RETURN_IF_ERROR(RequireHandle("event", event));
    auto made = std::make_unique<annulusEvent>(annulusEvent{device->driver.get(), nullptr});
    ANNULUS_ASSIGN_OR_RETURN(made->event, device->driver->CreateEvent());
    *event = made.release();
    return absl::OkStatus();
  });
}

void EventDestroy(annulusEvent* event) {
  if (event == nullptr) return;
  event->driver->DestroyEvent(event->event);
  delete event;
}

annulusComputeStatus EventRecord(annulusEvent* event, annulusStream* stream) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("event", event));
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    ANNULUS_RETURN_IF_ERROR(event->driver->Record(event->event, stream->stream));
    event->recorded = true;
    return absl::OkStatus();
  });
}

// The time is when the wait noticed: that of the point itself if it was waited for, or that of this
// call if the point was reached before.
annulusComputeStatus EventSynchronize(annulusEvent* event, int64_t deadline_ns, int64_t* time_ns) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("event", event));
    if (!event->recorded) return absl::InvalidArgumentError("the event was never recorded");
    for (int spins = 0;; ++spins) {
      ANNULUS_ASSIGN_OR_RETURN(const bool reached, event->driver->Reached(event->event));
      const int64_t now = NowNs();
      if (reached) {
        if (time_ns != nullptr) *time_ns = now;
        return absl::OkStatus();
      }
      if (now >= deadline_ns) {
        return absl::DeadlineExceededError("the device has not reached the event by the deadline");
      }
      if (spins < kSpins) continue;
      const timespec pause = {0, std::min(kPollNs, deadline_ns - now)};
      nanosleep(&pause, nullptr);
    }
  });
}

absl::Status LaunchRows(annulusStream* stream, KernelId kernel, const cuda::RowParams& params) {
  ANNULUS_ASSIGN_OR_RETURN(const int64_t blocks, cuda::BlocksForRows(params.a));
  if (blocks == 0) return absl::OkStatus();
  return stream->driver->Launch(kernel, blocks, &params, stream->stream);
}

template <typename Params>
absl::Status LaunchAll(annulusStream* stream,
                       const std::vector<cuda::PlannedLaunch<Params>>& launches) {
  for (const cuda::PlannedLaunch<Params>& launch : launches) {
    ANNULUS_RETURN_IF_ERROR(
        stream->driver->Launch(launch.kernel, launch.blocks, &launch.params, stream->stream));
  }
  return absl::OkStatus();
}

annulusComputeStatus Reset(annulusStream* stream, const annulusTensor* o,
                           const annulusRowStat* lse) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    ANNULUS_RETURN_IF_ERROR(CheckReset(o, lse));
    return LaunchRows(stream, KernelId::kReset, {*o, {}, *lse, {}});
  });
}

// Whether the call goes to the kernels of compute capability 9.0.
template <typename Args>
absl::StatusOr<bool> TakesHopper(const annulusDevice& device, const Args& args) {
  const cuda::KernelShape& any = cuda::ShapeOf(KernelId::kAttendHopperBf16_128);
  if (device.provider == cuda::Provider::kPortable) return false;
  if (!cuda::RunsOn(any, device.driver->properties())) return false;
  const absl::Status takes = cuda::CheckHopperTakes(args);
  if (!takes.ok() && device.provider == cuda::Provider::kSm90) return takes;
  if (!takes.ok() && device.blocks_max < device.driver->properties().multiprocessors) {
    return absl::InvalidArgumentError(absl::StrCat(
        takes.message(), "; the portable kernels, which take it, leave no spare_units"));
  }
  return takes.ok();
}

absl::Status AttendHopper(annulusStream* stream, const annulusAttendArgs& args) {
  ANNULUS_ASSIGN_OR_RETURN(cuda::HopperAttendPlan plan,
                           cuda::PlanHopperAttend(args, stream->device->blocks_max));
  if (plan.launches.empty()) return absl::OkStatus();
  ANNULUS_ASSIGN_OR_RETURN(const cuda::TensorMap q, stream->driver->EncodeMap(plan.q));
  ANNULUS_ASSIGN_OR_RETURN(const cuda::TensorMap k, stream->driver->EncodeMap(plan.k));
  ANNULUS_ASSIGN_OR_RETURN(const cuda::TensorMap v, stream->driver->EncodeMap(plan.v));
  for (auto& launch : plan.launches) {
    launch.params.q = q;
    launch.params.k = k;
    launch.params.v = v;
  }
  return LaunchAll(stream, plan.launches);
}

annulusComputeStatus Attend(annulusStream* stream, const annulusAttendArgs* args) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    ANNULUS_RETURN_IF_ERROR(CheckAttend(args));
    if (stream->device->cudnn != nullptr) {
      return stream->device->cudnn->Attend(*args, stream->stream);
    }
    ANNULUS_ASSIGN_OR_RETURN(const bool hopper, TakesHopper(*stream->device, *args));
    if (hopper) return AttendHopper(stream, *args);
    ANNULUS_ASSIGN_OR_RETURN(const auto launches, cuda::PlanAttend(*args));
    return LaunchAll(stream, launches);
  });
}

annulusComputeStatus BackwardPrepare(annulusStream* stream, const annulusTensor* d_o,
                                     const annulusTensor* o, const annulusRowStat* delta) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    ANNULUS_RETURN_IF_ERROR(CheckRowDots(d_o, o, delta));
    return LaunchRows(stream, KernelId::kRowDots, {*d_o, *o, *delta, {}});
  });
}

// At least so many words that no launch has under way, zero. A call allocates only where it is
// larger than all before it.
absl::StatusOr<int32_t*> TurnsOf(annulusStream* stream, int64_t count) {
  if (count > stream->turns_count) {
    count = std::max(count, 2 * stream->turns_count);
    const size_t bytes = static_cast<size_t>(count) * sizeof(int32_t);
    ANNULUS_ASSIGN_OR_RETURN(void* const made, stream->driver->Allocate(bytes));
    stream->turns.push_back(made);
    stream->turns_count = 0;  // until it is zero
    ANNULUS_RETURN_IF_ERROR(stream->driver->Zero(made, bytes, stream->stream));
    stream->turns_count = count;
  }
  return static_cast<int32_t*>(stream->turns.back());
}

absl::Status BackwardHopper(annulusStream* stream, const annulusAttendBackwardArgs& args) {
  ANNULUS_ASSIGN_OR_RETURN(cuda::HopperBackwardPlan plan,
                           cuda::PlanHopperBackward(args, stream->device->blocks_max));
  if (plan.launches.empty()) return absl::OkStatus();
  ANNULUS_ASSIGN_OR_RETURN(const cuda::TensorMap q, stream->driver->EncodeMap(plan.q));
  ANNULUS_ASSIGN_OR_RETURN(const cuda::TensorMap d_o, stream->driver->EncodeMap(plan.d_o));
  ANNULUS_ASSIGN_OR_RETURN(const cuda::TensorMap k, stream->driver->EncodeMap(plan.k));
  ANNULUS_ASSIGN_OR_RETURN(const cuda::TensorMap v, stream->driver->EncodeMap(plan.v));
  int32_t* turns = nullptr;
  if (stream->device->deterministic) {
    ANNULUS_ASSIGN_OR_RETURN(turns, TurnsOf(stream, plan.turns));
  }
  for (auto& launch : plan.launches) {
    launch.params.q = q;
    launch.params.d_o = d_o;
    launch.params.k = k;
    launch.params.v = v;
    launch.params.turns = turns;
  }
  return LaunchAll(stream, plan.launches);
}

annulusComputeStatus AttendBackward(annulusStream* stream, const annulusAttendBackwardArgs* args) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    ANNULUS_RETURN_IF_ERROR(CheckAttendBackward(args));
    if (stream->device->cudnn != nullptr) {
      return stream->device->cudnn->AttendBackward(*args, stream->stream);
    }
    ANNULUS_ASSIGN_OR_RETURN(const bool hopper, TakesHopper(*stream->device, *args));
    if (hopper) return BackwardHopper(stream, *args);
    ANNULUS_ASSIGN_OR_RETURN(const auto launches, cuda::PlanAttendBackward(*args));
    return LaunchAll(stream, launches);
  });
}

annulusComputeStatus Merge(annulusStream* stream, const annulusTensor* o, const annulusRowStat* lse,
                           const annulusTensor* o2, const annulusRowStat* lse2) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    ANNULUS_RETURN_IF_ERROR(CheckMerge(o, lse, o2, lse2));
    return LaunchRows(stream, KernelId::kMerge, {*o, *o2, *lse, *lse2});
  });
}

annulusComputeStatus Accumulate(annulusStream* stream, float* dst, const void* src,
                                annulusDtype src_dtype, int64_t count) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    ANNULUS_RETURN_IF_ERROR(CheckAccumulate(dst, src, RawValue(src_dtype), count));
    ANNULUS_ASSIGN_OR_RETURN(const int64_t blocks, cuda::BlocksForElements(count));
    if (blocks == 0) return absl::OkStatus();
    const cuda::AccumulateParams params = {dst, src, src_dtype, count};
    return stream->driver->Launch(KernelId::kAccumulate, blocks, &params, stream->stream);
  });
}

annulusComputeStatus Finish(annulusStream* stream, const annulusTensor* src,
                            const annulusTensor* dst) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    ANNULUS_RETURN_IF_ERROR(CheckFinish(src, dst));
    return LaunchRows(stream, KernelId::kConvert, {*src, *dst, {}, {}});
  });
}

annulusComputeStatus FillZero(annulusStream* stream, void* memory, size_t bytes) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    if (bytes == 0) return absl::OkStatus();
    ANNULUS_RETURN_IF_ERROR(RequireHandle("memory", memory));
    return stream->driver->Zero(memory, bytes, stream->stream);
  });
}

}  // namespace

const annulusComputeV1* CudaPlugin() {
  static const annulusComputeV1 plugin = {
      .struct_size = sizeof(annulusComputeV1),
      .abi_minor = 2,
      .name = "cuda",
      .caps = ANNULUS_COMPUTE_CAP_BACKWARD | ANNULUS_COMPUTE_CAP_SLIDING_WINDOW |
              ANNULUS_COMPUTE_CAP_ASYNC,
      .open = Open,
      .close = Close,
      .last_error = LastError,
      .device_info = DeviceInfo,
      .supports = Supports,
      .alloc = Alloc,
      .free = Free,
      .stream_create = StreamCreate,
      .stream_destroy = StreamDestroy,
      .event_create = EventCreate,
      .event_destroy = EventDestroy,
      .event_record = EventRecord,
      .event_synchronize = EventSynchronize,
      .reset = Reset,
      .attend = Attend,
      .backward_prepare = BackwardPrepare,
      .attend_backward = AttendBackward,
      .merge = Merge,
      .accumulate = Accumulate,
      .finish = Finish,
      .fill_zero = FillZero,
      .run_ceiling = nullptr,  // tests/gpu/bench.sh takes a matrix product as its yardstick
      .copy = cuda::CopyRows,
      .register_host = cuda::RegisterHost,
      .unregister_host = cuda::UnregisterHost,
      .export_memory = cuda::ExportMemory,
      .import_memory = cuda::ImportMemory,
      .release_memory = cuda::ReleaseMemory,
  };
  return &plugin;
}

}  // namespace annulus::kernels
