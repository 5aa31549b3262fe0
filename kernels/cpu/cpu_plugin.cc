// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/cpu_plugin.h"

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/cpu/backward.h"
#include "kernels/cpu/ceiling.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/few_rows.h"
#include "kernels/cpu/forward.h"
#include "kernels/cpu/forward_kernel.h"
#include "kernels/cpu/multiplier.h"
#include "kernels/cpu/workspace.h"
#include "kernels/plugin_border.h"
#include "kernels/tensor_view.h"
#include "kernels/validate.h"
#include "server/base/status_macros.h"

struct annulusDevice {
  annulusDevice(annulus::kernels::cpu::Multiplier multiplier, int threads, std::vector<int> cpus)
      : workspace(multiplier, threads, std::move(cpus)) {}
  std::mutex mutex;  // one call at a time uses what follows
  annulus::kernels::cpu::Workspace workspace;
  annulus::kernels::cpu::ReadArray read_array;
};

struct annulusStream {
  annulusDevice* device;
};

struct annulusEvent {
  int64_t time_ns = 0;
};

namespace annulus::kernels {
namespace {

constexpr int kThreadsMax = 1024;
constexpr size_t kAlignment = 64;

// Processors that this process may run on, one for each thread, or none.
absl::Status CpusOf(const annulusComputeOptions& options, std::vector<int>* cpus) {
  if (options.cpu_count == 0) return absl::OkStatus();
  ANNULUS_RETURN_IF_ERROR(RequireHandle("cpus", options.cpus));
  if (options.cpu_count != static_cast<size_t>(options.threads)) {
    return absl::InvalidArgumentError(absl::StrCat("cpus: ", options.cpu_count, " for ",
                                                   options.threads, " threads, expected one each"));
  }
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("cpus: ", std::strerror(errno)));
  }
  for (size_t i = 0; i < options.cpu_count; ++i) {
    const int cpu = options.cpus[i];
    if (cpu < 0 || cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &allowed)) {
      return absl::InvalidArgumentError(
          absl::StrCat("cpus: this process may not run on processor ", cpu));
    }
    cpus->push_back(cpu);
  }
  return absl::OkStatus();
}

annulusComputeStatus Open(const annulusComputeOptions* given, annulusDevice** device) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_ASSIGN_OR_RETURN(
        const annulusComputeOptions options,
        ReadStruct("options", given, offsetof(annulusComputeOptions, provider)));
    ANNULUS_RETURN_IF_ERROR(RequireHandle("device", device));
    if (options.device_ordinal != 0) {
      return absl::InvalidArgumentError(absl::StrCat("device_ordinal ", options.device_ordinal,
                                                     ", expected 0: the host is one device"));
    }
    ANNULUS_ASSIGN_OR_RETURN(
        const cpu::Multiplier multiplier,
        cpu::MultiplierOf(options.provider == nullptr ? "auto" : options.provider));
    if (options.spare_units != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("spare_units ", options.spare_units, ", expected 0: the CPU has none"));
    }
    if (options.threads < 1 || options.threads > kThreadsMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("threads ", options.threads, ", expected 1 to ", kThreadsMax));
    }
    std::vector<int> cpus;
    ANNULUS_RETURN_IF_ERROR(CpusOf(options, &cpus));
    *device = new annulusDevice(multiplier, options.threads, std::move(cpus));
    return absl::OkStatus();
  });
}

void Close(annulusDevice* device) { delete device; }

annulusComputeStatus DeviceInfo(annulusDevice* device, annulusDeviceInfo* info) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("device", device));
    const int threads = device->workspace.pool.threads();
    const std::string text = absl::StrCat("cpu: ", cpu::SimdTargetName(),
                                          cpu::MultiplierText(device->workspace.multiplier), ", ",
                                          threads, threads == 1 ? " thread" : " threads");
    annulusDeviceInfo found = {};
    text.copy(found.description, sizeof(found.description) - 1);
    found.compute_units = threads;
    found.host_memory = 1;
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
    *memory = ::operator new (std::max<size_t>(bytes, 1), std::align_val_t{kAlignment});
    return absl::OkStatus();
  });
}

void Free(annulusDevice*, void* memory) {
  ::operator delete (memory, std::align_val_t{kAlignment});
}

annulusComputeStatus StreamCreate(annulusDevice* device, annulusStream** stream) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("device", device));
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    *stream = new annulusStream{device};
    return absl::OkStatus();
  });
}

void StreamDestroy(annulusStream* stream) { delete stream; }

annulusComputeStatus EventCreate(annulusDevice* device, annulusEvent** event) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("device", device));
    ANNULUS_RETURN_IF_ERROR(RequireHandle("event", event));
    *event = new annulusEvent;
    return absl::OkStatus();
  });
}

void EventDestroy(annulusEvent* event) { delete event; }

annulusComputeStatus EventRecord(annulusEvent* event, annulusStream* stream) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("event", event));
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    timespec now = {};
    clock_gettime(CLOCK_MONOTONIC, &now);
    event->time_ns = int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
    return absl::OkStatus();
  });
}

// Whatever was recorded is already done: never waits.
annulusComputeStatus EventSynchronize(annulusEvent* event, int64_t, int64_t* time_ns) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("event", event));
    if (event->time_ns == 0) return absl::InvalidArgumentError("the event was never recorded");
    if (time_ns != nullptr) *time_ns = event->time_ns;
    return absl::OkStatus();
  });
}

annulusComputeStatus Reset(annulusStream* stream, const annulusTensor* o,
                           const annulusRowStat* lse) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    ANNULUS_RETURN_IF_ERROR(CheckReset(o, lse));
    cpu::Reset(*o, *lse);
    return absl::OkStatus();
  });
}

annulusComputeStatus Attend(annulusStream* stream, const annulusAttendArgs* args) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    ANNULUS_RETURN_IF_ERROR(CheckAttend(args));
    const std::lock_guard<std::mutex> lock(stream->device->mutex);
    if (cpu::HasFewRows(*args)) {
      cpu::AttendFewRows(*args, &stream->device->workspace);
    } else {
      cpu::Attend(*args, &stream->device->workspace);
    }
    return absl::OkStatus();
  });
}

annulusComputeStatus BackwardPrepare(annulusStream* stream, const annulusTensor* d_o,
                                     const annulusTensor* o, const annulusRowStat* delta) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    ANNULUS_RETURN_IF_ERROR(CheckRowDots(d_o, o, delta));
    cpu::RowDots(*d_o, *o, *delta);
    return absl::OkStatus();
  });
}

annulusComputeStatus AttendBackward(annulusStream* stream, const annulusAttendBackwardArgs* args) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    ANNULUS_RETURN_IF_ERROR(CheckAttendBackward(args));
    const std::lock_guard<std::mutex> lock(stream->device->mutex);
    cpu::AttendBackward(*args, &stream->device->workspace);
    return absl::OkStatus();
  });
}

annulusComputeStatus Merge(annulusStream* stream, const annulusTensor* o, const annulusRowStat* lse,
                           const annulusTensor* o2, const annulusRowStat* lse2) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    ANNULUS_RETURN_IF_ERROR(CheckMerge(o, lse, o2, lse2));
    cpu::Merge(*o, *lse, *o2, *lse2);
    return absl::OkStatus();
  });
}

annulusComputeStatus Accumulate(annulusStream* stream, float* dst, const void* src,
                                annulusDtype src_dtype, int64_t count) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    ANNULUS_RETURN_IF_ERROR(CheckAccumulate(dst, src, RawValue(src_dtype), count));
    cpu::AddInto(dst, src, src_dtype, count);
    return absl::OkStatus();
  });
}

annulusComputeStatus Finish(annulusStream* stream, const annulusTensor* src,
                            const annulusTensor* dst) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    ANNULUS_RETURN_IF_ERROR(CheckFinish(src, dst));
    cpu::Convert(*src, *dst);
    return absl::OkStatus();
  });
}

annulusComputeStatus FillZero(annulusStream* stream, void* memory, size_t bytes) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    if (bytes == 0) return absl::OkStatus();
    ANNULUS_RETURN_IF_ERROR(RequireHandle("memory", memory));
    std::memset(memory, 0, bytes);
    return absl::OkStatus();
  });
}

annulusComputeStatus RunCeiling(annulusStream* stream, annulusCeiling ceiling, double* work) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(RequireHandle("stream", stream));
    ANNULUS_RETURN_IF_ERROR(RequireHandle("work", work));
    annulusDevice* device = stream->device;
    const std::lock_guard<std::mutex> lock(device->mutex);
    switch (const int raw = RawValue(ceiling)) {
      case ANNULUS_CEILING_MULTIPLY_ADD_F32:
        *work = cpu::RunMultiplyAdds(&device->workspace.pool);
        return absl::OkStatus();
      case ANNULUS_CEILING_MEMORY_READ:
        *work = device->read_array.Read(&device->workspace.pool);
        return absl::OkStatus();
      default:
        return absl::InvalidArgumentError(absl::StrCat("ceiling: unknown kind ", raw));
    }
  });
}

}  // namespace

const annulusComputeV1* CpuPlugin() {
  static const annulusComputeV1 plugin = {
      .struct_size = sizeof(annulusComputeV1),
      .abi_minor = 2,
      .name = "cpu",
      .caps = ANNULUS_COMPUTE_CAP_BACKWARD | ANNULUS_COMPUTE_CAP_SLIDING_WINDOW,
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
      .run_ceiling = RunCeiling,
      .copy = nullptr,
      .register_host = nullptr,
      .unregister_host = nullptr,
      .export_memory = nullptr,
      .import_memory = nullptr,
      .release_memory = nullptr,
  };
  return &plugin;
}

}  // namespace annulus::kernels
