// SPDX-License-Identifier: Apache-2.0
#include "server/worker/device.h"

#include <cstring>
#include <new>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/worker/clock.h"

namespace annulus::worker {
namespace {

// What every table has, the members of abi_minor 0, and what one has that knows of device memory.
constexpr size_t kTableBytes = offsetof(annulusComputeV1, run_ceiling);
constexpr size_t kTableBytesMinor2 = offsetof(annulusComputeV1, release_memory) + sizeof(void*);

constexpr size_t kHostAlignBytes = 4096;  // a page: that is what can be pinned

bool KnowsMinor2(const annulusComputeV1& table) { return table.struct_size >= kTableBytesMinor2; }

absl::Status CheckTable(const annulusComputeV1* table, const DeviceOptions& options) {
  if (table == nullptr) return absl::InvalidArgumentError("no compute plugin given");
  if (table->struct_size < kTableBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the compute plugin's table has ",
                                                   table->struct_size, " bytes, expected at least ",
                                                   kTableBytes));
  }
  const bool plain = options.provider.empty() && options.spare_units == 0 && !options.deterministic;
  if (plain || KnowsMinor2(*table)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("compute plugin \"", table->name, "\" is of ABI minor ", table->abi_minor,
                   ", a provider, spare units and determinism take 2"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<Device>> Device::Open(const annulusComputeV1* table,
                                                     const DeviceOptions& options) {
  ANNULUS_RETURN_IF_ERROR(CheckTable(table, options));
  annulusComputeOptions plain{};
  plain.struct_size = sizeof(plain);
  plain.device_ordinal = options.ordinal;
  plain.threads = options.threads;
  plain.cpus = options.cpus.data();
  plain.cpu_count = options.cpus.size();
  plain.provider = options.provider.empty() ? nullptr : options.provider.c_str();
  plain.spare_units = options.spare_units;
  plain.deterministic = options.deterministic ? 1 : 0;
  annulusDevice* opened = nullptr;
  const annulusComputeStatus status = table->open(&plain, &opened);
  if (status != ANNULUS_COMPUTE_OK) {
    return absl::FailedPreconditionError(
        absl::StrCat("compute device \"", table->name, "\" does not open: ", table->last_error()));
  }
  std::shared_ptr<Device> device(new Device(table, opened));
  device->ordinal_ = options.ordinal;
  ANNULUS_RETURN_IF_ERROR(device->ReadInfo());
  return device;
}

absl::Status Device::ReadInfo() {
  annulusDeviceInfo info{};
  info.struct_size = sizeof(info);
  ANNULUS_RETURN_IF_ERROR(ToStatus(table_->device_info(device_, &info), "device_info"));
  description_ = info.description;
  bus_id_ = info.bus_id;
  host_memory_ = info.host_memory == 1;
  if (host_memory_ || (KnowsMinor2(*table_) && table_->copy != nullptr)) return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat("compute device \"", description_,
                   "\" has memory that the host cannot touch, and no copies to and from it"));
}

Device::~Device() {
  for (const auto& [stream, event] : idle_queues_) {
    table_->event_destroy(event);
    table_->stream_destroy(stream);
  }
  table_->close(device_);
}

Device::Queue& Device::Queue::operator=(Queue&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(stream_, other.stream_);
  std::swap(event_, other.event_);
  return *this;
}

Device::Queue::~Queue() {
  if (device_ == nullptr) return;
  if (!Drain(kNever).ok()) {  // what has failed once is not lent again
    device_->table().event_destroy(event_);
    device_->table().stream_destroy(stream_);
    return;
  }
  std::lock_guard lock(device_->mutex_);
  device_->idle_queues_.emplace_back(stream_, event_);
}

absl::Status Device::Queue::Drain(int64_t deadline_ns) const {
  if (!device_->asynchronous()) return absl::OkStatus();
  const annulusComputeV1& table = device_->table();
  absl::Status recorded = device_->ToStatus(table.event_record(event_, stream_), "event_record");
  if (!recorded.ok()) return recorded;
  int64_t reached_ns = 0;
  return device_->ToStatus(table.event_synchronize(event_, deadline_ns, &reached_ns),
                           "waiting for the device");
}

absl::StatusOr<Device::Queue> Device::BorrowQueue() {
  Queue queue;
  {
    std::lock_guard lock(mutex_);
    if (!idle_queues_.empty()) {
      std::tie(queue.stream_, queue.event_) = idle_queues_.back();
      idle_queues_.pop_back();
      queue.device_ = this;
      return queue;
    }
  }
  absl::Status made = ToStatus(table_->stream_create(device_, &queue.stream_), "stream_create");
  if (!made.ok()) return made;
  made = ToStatus(table_->event_create(device_, &queue.event_), "event_create");
  if (!made.ok()) {
    table_->stream_destroy(queue.stream_);
    return made;
  }
  queue.device_ = this;
  return queue;
}

absl::Status Device::Supports(annulusDtype dtype, int64_t head_dim, int64_t query_heads,
                              int64_t kv_heads) const {
  return ToStatus(table_->supports(device_, dtype, head_dim, query_heads, kv_heads),
                  "this shape does not run here");
}

absl::StatusOr<void*> Device::Allocate(size_t bytes, Memory memory) {
  void* data = nullptr;
  if (memory == Memory::kDevice || host_memory_) {
    ANNULUS_RETURN_IF_ERROR(ToStatus(table_->alloc(device_, bytes, &data), "alloc"));
    return data;
  }
  data = ::operator new (bytes, std::align_val_t{kHostAlignBytes}, std::nothrow);
  if (data == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no ", bytes, " bytes of host memory"));
  }
  Pin(data, bytes);
  return data;
}

void Device::Free(void* data, Memory memory) {
  if (memory == Memory::kDevice || host_memory_) return table_->free(device_, data);
  Unpin(data);
  ::operator delete (data, std::align_val_t{kHostAlignBytes});
}

absl::Status Device::Copy(const Queue& queue, const annulusCopyArgs& args) const {
  if (!host_memory_) return ToStatus(table_->copy(queue.stream(), &args), "copying rows");
  const auto* from = static_cast<const uint8_t*>(args.from);
  auto* to = static_cast<uint8_t*>(args.to);
  for (size_t row = 0; row < args.rows; ++row) {
    std::memcpy(to + row * args.to_pitch, from + row * args.from_pitch, args.row_bytes);
  }
  return absl::OkStatus();
}

bool Device::Pin(void* data, size_t bytes) {
  if (host_memory_ || table_->register_host == nullptr) return false;
  return table_->register_host(device_, data, bytes) == ANNULUS_COMPUTE_OK;
}

void Device::Unpin(void* data) {
  if (!host_memory_ && table_->unregister_host != nullptr) table_->unregister_host(device_, data);
}

absl::StatusOr<void*> Device::Import(const annulusMemoryHandle& handle) {
  if (host_memory_ || table_->import_memory == nullptr || table_->release_memory == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat("device \"", description_, "\" takes no memory of other processes"));
  }
  void* memory = nullptr;
  ANNULUS_RETURN_IF_ERROR(
      ToStatus(table_->import_memory(device_, &handle, &memory), "importing device memory"));
  return memory;
}

void Device::Release(void* memory) { table_->release_memory(device_, memory); }

absl::Status Device::ToStatus(annulusComputeStatus status, const char* what) const {
  if (status == ANNULUS_COMPUTE_OK) return absl::OkStatus();
  const std::string text = absl::StrCat(what, ": ", table_->last_error());
  switch (status) {
    case ANNULUS_COMPUTE_INVALID_ARGUMENT:
      return absl::InvalidArgumentError(text);
    case ANNULUS_COMPUTE_OUT_OF_MEMORY:
      return absl::ResourceExhaustedError(text);
    case ANNULUS_COMPUTE_DEADLINE:
      return absl::DeadlineExceededError(text);
    default:
      return absl::InternalError(text);
  }
}

}  // namespace annulus::worker
