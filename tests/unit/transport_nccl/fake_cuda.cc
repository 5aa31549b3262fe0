// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/transport_nccl/fake_model.h"

namespace annulus::transport::nccl {

class FakeCuda final : public CudaApi {
 public:
  std::string device_words() const override { return "a model"; }
  int driver_version() const override { return 13000; }

  absl::Status Enter() override { return Strike(FakeCall::kEnter, "cudaSetDevice"); }

  absl::StatusOr<Stream> CreateStream() override {
    if (gpu_.Strike(FakeCall::kCreateStream)) return absl::InternalError("cudaStreamCreate");
    return Make(&gpu_.streams_);
  }
  void DestroyStream(Stream stream) override {
    std::lock_guard lock(gpu_.mutex_);
    gpu_.streams_.erase(stream);
  }
  absl::StatusOr<Event> CreateEvent() override {
    if (gpu_.Strike(FakeCall::kCreateEvent)) return absl::InternalError("cudaEventCreate");
    return Make(&gpu_.events_);
  }
  void DestroyEvent(Event event) override {
    std::lock_guard lock(gpu_.mutex_);
    for (const auto& [key, stream] : gpu_.streams_) {
      std::erase_if(stream->items, [event](const auto& item) { return item.event == event; });
    }
    gpu_.events_.erase(event);
  }

  absl::Status Record(Event event, Stream stream) override {
    if (gpu_.Strike(FakeCall::kRecord)) return absl::InternalError("cudaEventRecord");
    std::lock_guard lock(gpu_.mutex_);
    FakeGpu::FakeEvent* const recorded = gpu_.events_.at(event).get();
    recorded->recorded = true;
    recorded->reached = false;
    FakeGpu::Item item;
    item.event = recorded;
    Push(stream, std::move(item));
    return absl::OkStatus();
  }
  absl::StatusOr<bool> Reached(Event event) override {
    if (gpu_.Strike(FakeCall::kReached)) return absl::InternalError("cudaEventQuery");
    std::lock_guard lock(gpu_.mutex_);
    const FakeGpu::FakeEvent& asked = *gpu_.events_.at(event);
    if (!asked.recorded) gpu_.Violate("asked for an event that was never recorded");
    return asked.reached;
  }
  absl::StatusOr<int64_t> ElapsedNs(Event from, Event to) override {
    if (gpu_.Strike(FakeCall::kElapsed)) return absl::InternalError("cudaEventElapsedTime");
    std::lock_guard lock(gpu_.mutex_);
    return gpu_.events_.at(to)->reached_ns - gpu_.events_.at(from)->reached_ns;
  }

  absl::StatusOr<void*> Allocate(size_t bytes) override {
    if (gpu_.Strike(FakeCall::kAllocate)) return absl::ResourceExhaustedError("cudaMalloc");
    void* const memory = ::operator new(bytes);
    std::lock_guard lock(gpu_.mutex_);
    gpu_.allocations_.insert(memory);
    return memory;
  }
  void Free(void* memory) override {
    std::lock_guard lock(gpu_.mutex_);
    if (gpu_.allocations_.erase(memory) == 0) gpu_.Violate("freed twice");
    ::operator delete(memory);
  }
  absl::Status CopyIn(void* memory, const void* host, size_t bytes, Stream stream) override {
    if (gpu_.Strike(FakeCall::kCopyIn)) return absl::InternalError("cudaMemcpyAsync");
    return Copy(memory, host, bytes, stream);
  }
  absl::Status CopyOut(void* host, const void* memory, size_t bytes, Stream stream) override {
    if (gpu_.Strike(FakeCall::kCopyOut)) return absl::InternalError("cudaMemcpyAsync");
    return Copy(host, memory, bytes, stream);
  }

 private:
  absl::Status Strike(FakeCall call, const char* name) {
    return gpu_.Strike(call) ? absl::InternalError(name) : absl::OkStatus();
  }

  template <typename Kind>
  void* Make(std::map<void*, std::unique_ptr<Kind>>* table) {
    auto made = std::make_unique<Kind>();
    void* const key = made.get();
    std::lock_guard lock(gpu_.mutex_);
    table->emplace(key, std::move(made));
    return key;
  }

  absl::Status Copy(void* to, const void* from, size_t bytes, Stream stream) {
    std::lock_guard lock(gpu_.mutex_);
    FakeGpu::Item item;
    item.to = to;
    item.from = from;
    item.bytes = bytes;
    Push(stream, std::move(item));
    return absl::OkStatus();
  }

  void Push(Stream stream, FakeGpu::Item item) {
    gpu_.streams_.at(stream)->items.push_back(std::move(item));
    gpu_.changed_.notify_all();
  }

  FakeGpu& gpu_ = FakeGpu::Get();
};

absl::StatusOr<std::shared_ptr<CudaApi>> OpenCuda(int) { return std::make_shared<FakeCuda>(); }

}  // namespace annulus::transport::nccl
