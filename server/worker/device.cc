// SPDX-License-Identifier: Apache-2.0
#include "server/worker/device.h"

#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"

namespace annulus::worker {
namespace {

// What every table has: the members of abi_minor 0.
constexpr size_t kTableBytes = offsetof(annulusComputeV1, run_ceiling);

}  // namespace

absl::StatusOr<std::shared_ptr<Device>> Device::Open(const annulusComputeV1* table, int threads,
                                                     const std::vector<int>& cpus) {
  if (table == nullptr) return absl::InvalidArgumentError("no compute plugin given");
  if (table->struct_size < kTableBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the compute plugin's table has ",
                                                   table->struct_size, " bytes, expected at least ",
                                                   kTableBytes));
  }
  annulusComputeOptions options{};
  options.struct_size = sizeof(options);
  options.threads = threads;
  options.cpus = cpus.data();
  options.cpu_count = cpus.size();
  annulusDevice* opened = nullptr;
  const annulusComputeStatus status = table->open(&options, &opened);
  if (status != ANNULUS_COMPUTE_OK) {
    return absl::FailedPreconditionError(
        absl::StrCat("compute device \"", table->name, "\" does not open: ", table->last_error()));
  }
  std::shared_ptr<Device> device(new Device(table, opened));
  annulusDeviceInfo info{};
  info.struct_size = sizeof(info);
  absl::Status known = device->ToStatus(table->device_info(opened, &info), "device_info");
  if (!known.ok()) return known;
  if (info.host_memory != 1) {
    return absl::UnimplementedError(absl::StrCat("compute device \"", info.description,
                                                 "\" has memory that the host cannot touch"));
  }
  device->description_ = info.description;
  device->bus_id_ = info.bus_id;
  return device;
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

absl::StatusOr<void*> Device::Allocate(size_t bytes) {
  void* memory = nullptr;
  absl::Status status = ToStatus(table_->alloc(device_, bytes, &memory), "alloc");
  if (!status.ok()) return status;
  return memory;
}

void Device::Free(void* memory) { table_->free(device_, memory); }

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
