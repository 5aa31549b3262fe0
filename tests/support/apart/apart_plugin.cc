// SPDX-License-Identifier: Apache-2.0
#include "tests/support/apart/apart_plugin.h"

#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_plugin.h"
#include "kernels/plugin_border.h"
#include "server/base/status_macros.h"
#include "tests/support/apart/apart_memory.h"
#include "tests/support/apart/apart_stream.h"

struct annulusDevice {
  annulusDevice* cpu = nullptr;
  annulusStream* cpu_stream = nullptr;
  int ordinal = 0;
};

struct annulusStream {
  explicit annulusStream(annulusDevice* of) : device(of) {}
  annulusDevice* device;
  annulus::testing_support::ApartStream work;
};

struct annulusEvent {
  annulus::testing_support::ApartStream* stream = nullptr;
  int64_t point = 0;
};

namespace annulus::testing_support {
namespace {

using kernels::CpuPlugin;
using kernels::Guarded;

constexpr int kDevices = 4;

// What the devices of the process count; atomics, because streams run on threads of their own.
struct Counters {
  std::atomic<int64_t> copies{0}, kernels{0}, imported{0};
  std::atomic<int64_t> attention_left{-1};  // until one fails; -1: none does
  std::mutex mutex;
  std::set<const void*> pinned;  // guarded by mutex
};

Counters& Counted() {
  static Counters counters;
  return counters;
}

absl::Status ToStatus(annulusComputeStatus status) {
  return status == ANNULUS_COMPUTE_OK ? absl::OkStatus()
                                      : absl::InternalError(CpuPlugin()->last_error());
}

// Puts the alias in the place of an address in device memory. A view without rows names none.
template <typename T>
absl::Status Reach(T** data, bool empty) {
  if (empty) return absl::OkStatus();
  uint8_t* alias = ApartMemory::Get().Alias(*data);
  if (alias == nullptr) return absl::InternalError("a kernel was given the host's memory");
  *data = reinterpret_cast<T*>(alias);
  return absl::OkStatus();
}

absl::Status Reach(annulusTensor* tensor) { return Reach(&tensor->data, tensor->rows == 0); }
absl::Status Reach(annulusRowStat* stat) { return Reach(&stat->data, stat->rows == 0); }

template <typename... Views>
absl::Status ReachAll(Views*... views) {
  absl::Status status;
  (status.Update(Reach(views)), ...);
  return status;
}

// Enqueues `body`, a call of the CPU's table that is given the views with the addresses it may use.
template <typename Body, typename... Views>
annulusComputeStatus Later(annulusStream* stream, Body body, Views... views) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(ReachAll(&views...));
    stream->work.Enqueue([=]() mutable -> absl::Status {
      ++Counted().kernels;
      return ToStatus(body(stream->device->cpu_stream, &views...));
    });
    return absl::OkStatus();
  });
}

annulusComputeStatus Open(const annulusComputeOptions* options, annulusDevice** device) {
  return Guarded([&]() -> absl::Status {
    if (options->device_ordinal < 0 || options->device_ordinal >= kDevices) {
      return absl::InvalidArgumentError(absl::StrCat("device_ordinal ", options->device_ordinal,
                                                     ", there are ", kDevices, " apart devices"));
    }
    annulusComputeOptions plain = *options;
    plain.device_ordinal = 0;
    auto made = std::make_unique<annulusDevice>();
    made->ordinal = options->device_ordinal;
    ANNULUS_RETURN_IF_ERROR(ToStatus(CpuPlugin()->open(&plain, &made->cpu)));
    ANNULUS_RETURN_IF_ERROR(ToStatus(CpuPlugin()->stream_create(made->cpu, &made->cpu_stream)));
    *device = made.release();
    return absl::OkStatus();
  });
}

void Close(annulusDevice* device) {
  CpuPlugin()->stream_destroy(device->cpu_stream);
  CpuPlugin()->close(device->cpu);
  delete device;
}

annulusComputeStatus DeviceInfo(annulusDevice* device, annulusDeviceInfo* info) {
  return Guarded([&]() -> absl::Status {
    annulusDeviceInfo found = {};
    std::snprintf(found.description, sizeof(found.description), "apart %d", device->ordinal);
    std::snprintf(found.bus_id, sizeof(found.bus_id), "0000:%02d:00.0", device->ordinal);
    found.compute_units = 1;
    return kernels::WriteStruct("info", found, offsetof(annulusDeviceInfo, bus_id), info);
  });
}

annulusComputeStatus Supports(annulusDevice* device, annulusDtype dtype, int64_t head_dim,
                              int64_t query_heads, int64_t kv_heads) {
  return CpuPlugin()->supports(device->cpu, dtype, head_dim, query_heads, kv_heads);
}

annulusComputeStatus Alloc(annulusDevice*, size_t bytes, void** memory) {
  *memory = ApartMemory::Get().Map(bytes);
  if (*memory != nullptr) return ANNULUS_COMPUTE_OK;
  return kernels::Fail(ANNULUS_COMPUTE_OUT_OF_MEMORY, "no mapping to be had");
}

void Free(annulusDevice*, void* memory) { ApartMemory::Get().Unmap(memory); }

annulusComputeStatus StreamCreate(annulusDevice* device, annulusStream** stream) {
  *stream = new annulusStream(device);
  return ANNULUS_COMPUTE_OK;
}

void StreamDestroy(annulusStream* stream) { delete stream; }

annulusComputeStatus EventCreate(annulusDevice*, annulusEvent** event) {
  *event = new annulusEvent;
  return ANNULUS_COMPUTE_OK;
}

void EventDestroy(annulusEvent* event) { delete event; }

annulusComputeStatus EventRecord(annulusEvent* event, annulusStream* stream) {
  event->stream = &stream->work;
  event->point = stream->work.Mark();
  return ANNULUS_COMPUTE_OK;
}

annulusComputeStatus EventSynchronize(annulusEvent* event, int64_t deadline_ns, int64_t*) {
  return Guarded([&] { return event->stream->Await(event->point, deadline_ns); });
}

annulusComputeStatus Reset(annulusStream* stream, const annulusTensor* o,
                           const annulusRowStat* lse) {
  return Later(stream, CpuPlugin()->reset, *o, *lse);
}

// The spans are the caller's again when the call returns, as with a real device.
struct Spans {
  template <typename Args>
  explicit Spans(const Args& args)
      : q(args.q_spans, args.q_spans + args.q_span_count),
        kv(args.kv_spans, args.kv_spans + args.kv_span_count) {}
  template <typename Args>
  void Put(Args* args) const {
    args->q_spans = q.data();
    args->kv_spans = kv.data();
  }
  std::vector<annulusSpan> q, kv;
};

annulusComputeStatus Attend(annulusStream* stream, const annulusAttendArgs* given) {
  return Guarded([&]() -> absl::Status {
    annulusAttendArgs args = *given;
    ANNULUS_RETURN_IF_ERROR(ReachAll(&args.q, &args.k, &args.v, &args.o, &args.lse));
    const Spans spans(args);
    stream->work.Enqueue([=]() mutable -> absl::Status {
      ++Counted().kernels;
      if (Counted().attention_left >= 0 && Counted().attention_left-- == 0) {
        return absl::InternalError("the apart device is broken");
      }
      spans.Put(&args);
      return ToStatus(CpuPlugin()->attend(stream->device->cpu_stream, &args));
    });
    return absl::OkStatus();
  });
}

annulusComputeStatus AttendBackward(annulusStream* stream, const annulusAttendBackwardArgs* given) {
  return Guarded([&]() -> absl::Status {
    annulusAttendBackwardArgs args = *given;
    ANNULUS_RETURN_IF_ERROR(ReachAll(&args.q, &args.k, &args.v, &args.d_o, &args.dq, &args.dk,
                                     &args.dv, &args.lse, &args.delta));
    const Spans spans(args);
    stream->work.Enqueue([=]() mutable -> absl::Status {
      ++Counted().kernels;
      spans.Put(&args);
      return ToStatus(CpuPlugin()->attend_backward(stream->device->cpu_stream, &args));
    });
    return absl::OkStatus();
  });
}

annulusComputeStatus BackwardPrepare(annulusStream* stream, const annulusTensor* d_o,
                                     const annulusTensor* o, const annulusRowStat* delta) {
  return Later(stream, CpuPlugin()->backward_prepare, *d_o, *o, *delta);
}

annulusComputeStatus Merge(annulusStream* stream, const annulusTensor* o, const annulusRowStat* lse,
                           const annulusTensor* o2, const annulusRowStat* lse2) {
  return Later(stream, CpuPlugin()->merge, *o, *lse, *o2, *lse2);
}

annulusComputeStatus Accumulate(annulusStream* stream, float* dst, const void* src,
                                annulusDtype dtype, int64_t count) {
  return Guarded([&]() -> absl::Status {
    void* from = const_cast<void*>(src);
    ANNULUS_RETURN_IF_ERROR(Reach(&dst, count == 0));
    ANNULUS_RETURN_IF_ERROR(Reach(&from, count == 0));
    stream->work.Enqueue([=] {
      ++Counted().kernels;
      return ToStatus(CpuPlugin()->accumulate(stream->device->cpu_stream, dst, from, dtype, count));
    });
    return absl::OkStatus();
  });
}

annulusComputeStatus Finish(annulusStream* stream, const annulusTensor* src,
                            const annulusTensor* dst) {
  return Later(stream, CpuPlugin()->finish, *src, *dst);
}

annulusComputeStatus FillZero(annulusStream* stream, void* memory, size_t bytes) {
  return Guarded([&]() -> absl::Status {
    ANNULUS_RETURN_IF_ERROR(Reach(&memory, bytes == 0));
    stream->work.Enqueue([=] {
      std::memset(memory, 0, bytes);
      return absl::OkStatus();
    });
    return absl::OkStatus();
  });
}

// The alias in device memory, with every row inside it, else the host's own address.
absl::StatusOr<uint8_t*> Side(const void* data, const annulusCopyArgs& args, size_t pitch) {
  size_t rest = 0;
  uint8_t* alias = ApartMemory::Get().Alias(data, &rest);
  if (alias == nullptr) return static_cast<uint8_t*>(const_cast<void*>(data));
  if ((args.rows - 1) * pitch + args.row_bytes <= rest) return alias;
  return absl::InvalidArgumentError("a copy runs past its memory");
}

annulusComputeStatus Copy(annulusStream* stream, const annulusCopyArgs* given) {
  return Guarded([&]() -> absl::Status {
    const annulusCopyArgs args = *given;
    if (args.rows == 0 || args.row_bytes == 0) return absl::OkStatus();
    ANNULUS_ASSIGN_OR_RETURN(uint8_t* const to, Side(args.to, args, args.to_pitch));
    ANNULUS_ASSIGN_OR_RETURN(const uint8_t* const from, Side(args.from, args, args.from_pitch));
    stream->work.Enqueue([=] {
      ++Counted().copies;
      for (size_t row = 0; row < args.rows; ++row) {
        std::memcpy(to + row * args.to_pitch, from + row * args.from_pitch, args.row_bytes);
      }
      return absl::OkStatus();
    });
    return absl::OkStatus();
  });
}

annulusComputeStatus RegisterHost(annulusDevice*, void* memory, size_t bytes) {
  return Guarded([&]() -> absl::Status {
    if (reinterpret_cast<uintptr_t>(memory) % 4096 != 0 || bytes % 4096 != 0) {
      return absl::InvalidArgumentError("only whole pages are pinned");
    }
    std::lock_guard lock(Counted().mutex);
    if (Counted().pinned.insert(memory).second) return absl::OkStatus();
    return absl::InvalidArgumentError("pinned already");
  });
}

annulusComputeStatus UnregisterHost(annulusDevice*, void* memory) {
  return Guarded([&]() -> absl::Status {
    std::lock_guard lock(Counted().mutex);
    if (Counted().pinned.erase(memory) == 1) return absl::OkStatus();
    return absl::InvalidArgumentError("not pinned");
  });
}

annulusComputeStatus ExportMemory(annulusDevice*, const void* memory, annulusMemoryHandle* handle) {
  return Guarded([&]() -> absl::Status {
    handle->kind = ANNULUS_MEMORY_DESCRIPTOR;
    handle->descriptor = ApartMemory::Get().Export(memory, &handle->offset, &handle->bytes);
    if (handle->descriptor >= 0) return absl::OkStatus();
    return absl::InvalidArgumentError("no memory of this device");
  });
}

annulusComputeStatus ImportMemory(annulusDevice*, const annulusMemoryHandle* handle,
                                  void** memory) {
  return Guarded([&]() -> absl::Status {
    if (handle->kind != ANNULUS_MEMORY_DESCRIPTOR) {
      return absl::InvalidArgumentError("only descriptors are taken");
    }
    void* base = ApartMemory::Get().Map(handle->bytes, handle->descriptor);
    if (base == nullptr) return absl::InvalidArgumentError("no descriptor of device memory");
    ++Counted().imported;
    *memory = static_cast<uint8_t*>(base) + handle->offset;
    return absl::OkStatus();
  });
}

annulusComputeStatus ReleaseMemory(annulusDevice*, void* memory) {
  return Guarded([&]() -> absl::Status {
    if (!ApartMemory::Get().Unmap(memory)) {
      return absl::InvalidArgumentError("no memory of this device");
    }
    --Counted().imported;
    return absl::OkStatus();
  });
}

}  // namespace

const annulusComputeV1* ApartPlugin() {
  static const annulusComputeV1 plugin = {
      .struct_size = sizeof(annulusComputeV1),
      .abi_minor = 2,
      .name = "apart",
      .caps = ANNULUS_COMPUTE_CAP_BACKWARD | ANNULUS_COMPUTE_CAP_SLIDING_WINDOW |
              ANNULUS_COMPUTE_CAP_ASYNC,
      .open = Open,
      .close = Close,
      .last_error = kernels::LastError,
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
      .run_ceiling = nullptr,
      .copy = Copy,
      .register_host = RegisterHost,
      .unregister_host = UnregisterHost,
      .export_memory = ExportMemory,
      .import_memory = ImportMemory,
      .release_memory = ReleaseMemory,
  };
  return &plugin;
}

ApartCounts CountApart() {
  Counters& counted = Counted();
  std::lock_guard lock(counted.mutex);
  const int64_t imported = counted.imported;
  return {counted.copies, counted.kernels, ApartMemory::Get().count() - imported,
          static_cast<int64_t>(counted.pinned.size()), imported};
}

void FailApartAttention(int64_t after) { Counted().attention_left = after; }

void ReadApart(const void* device, void* host, size_t bytes) {
  std::memcpy(host, ApartMemory::Get().Alias(device), bytes);
}

void WriteApart(void* device, const void* host, size_t bytes) {
  std::memcpy(ApartMemory::Get().Alias(device), host, bytes);
}

}  // namespace annulus::testing_support
