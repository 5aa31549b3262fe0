// SPDX-License-Identifier: Apache-2.0
#include "tests/contract/transport/fake_gpu.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <thread>

namespace annulus::transport::cuipc {
namespace {

constexpr size_t kAlignment = 512;
constexpr size_t kHalfBytes = size_t{1} << 34;  // of addresses
constexpr size_t kPieceBytes = size_t{64} << 10;

uint64_t AddressOf(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }
size_t Rounded(size_t bytes) { return (bytes + kAlignment) / kAlignment * kAlignment; }

}  // namespace

// One stream: jobs run in order, late, on a thread of its own.
class FakeStream {
 public:
  FakeStream() : thread_([this] { Run(); }) {}
  ~FakeStream() {
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  void Push(std::function<void()> job) {
    {
      std::lock_guard lock(mutex_);
      jobs_.push_back(std::move(job));
    }
    changed_.notify_all();
  }

 private:
  void Run() {
    while (true) {
      std::function<void()> job;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return closed_ || !jobs_.empty(); });
        if (jobs_.empty()) return;
        job = std::move(jobs_.front());
        jobs_.pop_front();
      }
      job();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool closed_ = false;
  std::thread thread_;
};

class FakeDevice final : public CopyDevice {
 public:
  absl::StatusOr<Allocation> Find(const void* address) override {
    std::lock_guard lock(gpu_.mutex_);
    if (!gpu_.InRange(AddressOf(address))) return Allocation{};
    auto block = gpu_.blocks_.upper_bound(AddressOf(address));
    if (block != gpu_.blocks_.begin()) {
      --block;
      if (AddressOf(address) - block->first < block->second.bytes) {
        return Allocation{true, block->second.id, block->first, block->second.bytes};
      }
    }
    return absl::InvalidArgumentError("an address of nothing");
  }

  absl::StatusOr<SharedMemory> Export(const Allocation& allocation) override {
    std::lock_guard lock(gpu_.mutex_);
    const auto block = gpu_.blocks_.find(allocation.base);
    if (block == gpu_.blocks_.end() || block->second.id != allocation.id) {
      return absl::InvalidArgumentError("exports what is not there");
    }
    SharedMemory memory;
    memory.allocation = allocation;
    std::memcpy(memory.ipc.data(), &allocation.id, sizeof(allocation.id));
    if (!block->second.by_descriptor) return memory;
    memory.ipc.fill(0);
    memory.descriptor = UniqueFd(::memfd_create("fake-allocation", MFD_CLOEXEC));
    if (::write(memory.descriptor.get(), &allocation.id, sizeof(allocation.id)) < 0)
      return absl::InternalError("no descriptor");
    return memory;
  }

  absl::StatusOr<void*> Import(const SharedMemory& memory, bool) override {
    std::lock_guard lock(gpu_.mutex_);
    if (gpu_.Fails(&gpu_.fail_import_)) return absl::InternalError("the import was made to fail");
    uint64_t id = 0;
    std::memcpy(&id, memory.ipc.data(), sizeof(id));
    if (memory.descriptor && ::pread(memory.descriptor.get(), &id, sizeof(id), 0) != sizeof(id)) {
      return absl::InternalError("no id behind the descriptor");
    }
    bool there = gpu_.import_anything_;
    for (const auto& [address, block] : gpu_.blocks_) there = there || block.id == id;
    if (!there) return absl::InternalError("imports what is not there");
    const uint64_t address = gpu_.next_mapping_;
    gpu_.next_mapping_ += Rounded(memory.allocation.bytes);
    gpu_.mappings_[address] = {id, memory.allocation.bytes};
    ++gpu_.census_.mappings;
    ++gpu_.census_.imports_ever;
    return reinterpret_cast<void*>(address);
  }

  void Release(void* imported) override {
    std::lock_guard lock(gpu_.mutex_);
    if (gpu_.mappings_.erase(AddressOf(imported)) == 0) gpu_.Violate("unmaps what is not mapped");
    --gpu_.census_.mappings;
  }

  absl::StatusOr<Stream> CreateStream() override {
    std::lock_guard lock(gpu_.mutex_);
    ++gpu_.census_.streams;
    return new FakeStream;
  }
  void DestroyStream(Stream stream) override {
    delete static_cast<FakeStream*>(stream);
    std::lock_guard lock(gpu_.mutex_);
    --gpu_.census_.streams;
  }

  absl::StatusOr<Event> CreateEvent() override {
    std::lock_guard lock(gpu_.mutex_);
    ++gpu_.census_.events;
    return new std::shared_ptr<std::atomic<bool>>(new std::atomic<bool>(false));
  }
  void DestroyEvent(Event event) override {
    delete static_cast<std::shared_ptr<std::atomic<bool>>*>(event);
    std::lock_guard lock(gpu_.mutex_);
    --gpu_.census_.events;
  }

  absl::Status Enqueue(absl::Span<const Copy> copies, Stream stream) override {
    bool fails = false;
    {
      std::lock_guard lock(gpu_.mutex_);
      fails = gpu_.Fails(&gpu_.fail_enqueue_);
      if (fails) copies = copies.first(copies.size() / 2);
      gpu_.census_.copies_pending += static_cast<int64_t>(copies.size());
    }
    for (const Copy& copy : copies) {
      static_cast<FakeStream*>(stream)->Push([this, copy] { gpu_.RunCopy(copy); });
    }
    return fails ? absl::InternalError("the enqueueing was made to fail") : absl::OkStatus();
  }

  absl::Status Record(Event event, Stream stream) override {
    const auto reached = *static_cast<std::shared_ptr<std::atomic<bool>>*>(event);
    reached->store(false);
    static_cast<FakeStream*>(stream)->Push([reached] { reached->store(true); });
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Reached(Event event) override {
    if (!(*static_cast<std::shared_ptr<std::atomic<bool>>*>(event))->load()) return false;
    std::lock_guard lock(gpu_.mutex_);
    if (gpu_.Fails(&gpu_.fail_reached_)) return absl::InternalError("the copies were made to fail");
    return true;
  }

 private:
  FakeGpu& gpu_ = FakeGpu::The();
};

absl::StatusOr<std::unique_ptr<CopyDevice>> OpenCopyDevice(int ordinal) {
  if (ordinal != 0) return absl::InvalidArgumentError("this machine has 1 device");
  return std::make_unique<FakeDevice>();
}

FakeGpu& FakeGpu::The() {
  static auto* const gpu = new FakeGpu;  // streams that hang outlive the tests
  return *gpu;
}

FakeGpu::FakeGpu() {
  void* range = ::mmap(nullptr, 2 * kHalfBytes, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) std::abort();
  begin_ = (AddressOf(range) + kAlignment - 1) / kAlignment * kAlignment;
  middle_ = begin_ + kHalfBytes;
  end_ = AddressOf(range) + 2 * kHalfBytes;
  next_mapping_ = middle_;
}

bool FakeGpu::InRange(uint64_t address) const { return address >= begin_ && address < end_; }

void* FakeGpu::Allocate(size_t bytes) {
  std::lock_guard lock(mutex_);
  uint64_t address = begin_;  // the first gap that is wide enough: freed addresses come again
  for (const auto& [at, block] : blocks_) {
    if (at - address >= Rounded(bytes)) break;
    address = at + Rounded(block.bytes);
  }
  Block& block = blocks_[address];
  block = {next_id_, bytes, next_id_ % 3 == 0, {}};
  block.backing.reset(static_cast<uint8_t*>(std::calloc(bytes, 1)));
  ++next_id_;
  return reinterpret_cast<void*>(address);
}

void FakeGpu::Free(void* memory) {
  std::lock_guard lock(mutex_);
  if (blocks_.erase(AddressOf(memory)) == 0) Violate("frees what is not there");
}

uint8_t* FakeGpu::Resolve(uint64_t address, size_t bytes, const char* why) {
  auto mapping = mappings_.upper_bound(address);
  if (mapping != mappings_.begin() && address >= middle_) {
    --mapping;
    const uint64_t offset = address - mapping->first;
    if (bytes <= mapping->second.bytes && offset <= mapping->second.bytes - bytes) {
      for (auto& [at, block] : blocks_) {
        if (block.id == mapping->second.id) return block.backing.get() + offset;
      }
    }
  }
  auto block = blocks_.upper_bound(address);
  if (block != blocks_.begin() && address < middle_) {
    --block;
    const uint64_t offset = address - block->first;
    if (bytes <= block->second.bytes && offset <= block->second.bytes - bytes) {
      return block->second.backing.get() + offset;
    }
  }
  Violate(std::string(why) + " memory that is not there (any more)");
  return nullptr;
}

void FakeGpu::RunCopy(const Copy& copy) {
  const int delay_us = DrawDelay();
  for (size_t done = 0; done < copy.bytes; done += kPieceBytes) {
    std::unique_lock lock(mutex_);
    if (done == 0) {
      ++census_.copies_ever;
      if (delay_us > 0)
        hang_ended_.wait_for(lock, std::chrono::microseconds(delay_us), [] { return false; });
    }
    hang_ended_.wait(lock, [this] { return !hang_; });
    const size_t bytes = std::min(kPieceBytes, copy.bytes - done);
    const uint8_t* from = Resolve(AddressOf(copy.from) + done, bytes, "a copy reads");
    uint8_t* to = Resolve(AddressOf(copy.to) + done, bytes, "a copy writes");
    if (from != nullptr && to != nullptr) std::memmove(to, from, bytes);
  }
  std::lock_guard lock(mutex_);
  --census_.copies_pending;
}

void FakeGpu::Upload(void* device, const void* host, size_t bytes) {
  std::lock_guard lock(mutex_);
  if (uint8_t* to = Resolve(AddressOf(device), bytes, "an upload writes")) {
    std::memcpy(to, host, bytes);
  }
}

void FakeGpu::Download(void* host, const void* device, size_t bytes) {
  std::lock_guard lock(mutex_);
  if (const uint8_t* from = Resolve(AddressOf(device), bytes, "a download reads")) {
    std::memcpy(host, from, bytes);
  }
}

std::string FakeGpu::Violations() {
  std::lock_guard lock(mutex_);
  return std::exchange(violations_, "");
}

void FakeGpu::Violate(const std::string& text) {
  if (violations_.size() < 1000) violations_ += text + "; ";
}

void FakeGpu::Delay(uint32_t seed, int delay_us_max) {
  std::lock_guard lock(mutex_);
  random_.seed(seed);
  delay_us_max_ = delay_us_max;
}

int FakeGpu::DrawDelay() {
  std::lock_guard lock(mutex_);
  if (random_() % 8 != 0) return 0;
  return std::uniform_int_distribution<int>(0, delay_us_max_)(random_);
}

void FakeGpu::Hang(bool hang) {
  {
    std::lock_guard lock(mutex_);
    hang_ = hang;
  }
  hang_ended_.notify_all();
}

bool FakeGpu::Fails(int* calls) {
  if (*calls == 0) return false;
  --*calls;
  return true;
}

void FakeGpu::FailEnqueue(int calls) {
  std::lock_guard lock(mutex_);
  fail_enqueue_ = calls;
}
void FakeGpu::FailReached(int calls) {
  std::lock_guard lock(mutex_);
  fail_reached_ = calls;
}
void FakeGpu::FailImport(int calls) {
  std::lock_guard lock(mutex_);
  fail_import_ = calls;
}
void FakeGpu::ImportAnything() {
  std::lock_guard lock(mutex_);
  import_anything_ = true;
}

void FakeGpu::ForgetLeaks() {
  std::lock_guard lock(mutex_);
  census_.streams = census_.events = census_.mappings = 0;
}

FakeGpu::Census FakeGpu::Count() {
  std::lock_guard lock(mutex_);
  return census_;
}

}  // namespace annulus::transport::cuipc
