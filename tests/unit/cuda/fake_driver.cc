// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/cuda/fake_driver.h"

#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cudnn/partial_rows.h"
#include "kernels/cuda/kernel_params.h"
#include "kernels/cuda/portable/backward.h"
#include "kernels/cuda/portable/forward.h"
#include "kernels/cuda/portable/forward_matrix.h"
#include "kernels/cuda/portable/row_ops.h"
#include "kernels/cuda/sm90/backward.h"
#include "kernels/cuda/sm90/forward.h"
#include "server/base/status_macros.h"
#include "tests/unit/cuda/block_emulator.h"
#include "tests/unit/cuda/emulated_tensor_map.h"
#include "tests/unit/cuda/hopper_emulator.h"

namespace annulus::kernels::cuda {
namespace {

using Body = std::function<void(EmulatedThread&)>;

Body BodyOf(KernelId kernel, const void* params) {
  const auto& attend = *static_cast<const AttendParams*>(params);
  const auto& backward = *static_cast<const BackwardParams*>(params);
  const auto& rows = *static_cast<const RowParams*>(params);
  const auto& partial = *static_cast<const PartialParams*>(params);
  const auto& accumulate = *static_cast<const AccumulateParams*>(params);
  switch (kernel) {
    case KernelId::kAttend64:
      return [&](auto& t) { Attend<64>(t, attend); };
    case KernelId::kAttend128:
      return [&](auto& t) { Attend<128>(t, attend); };
    case KernelId::kAttend256:
      return [&](auto& t) { Attend<256>(t, attend); };
    case KernelId::kAttendMatrixBf16_64:
      return [&](auto& t) { AttendOnMatrixUnits<Bf16, 64>(t, attend); };
    case KernelId::kAttendMatrixBf16_128:
      return [&](auto& t) { AttendOnMatrixUnits<Bf16, 128>(t, attend); };
    case KernelId::kAttendMatrixF16_64:
      return [&](auto& t) { AttendOnMatrixUnits<F16, 64>(t, attend); };
    case KernelId::kAttendMatrixF16_128:
      return [&](auto& t) { AttendOnMatrixUnits<F16, 128>(t, attend); };
    case KernelId::kQueryGradients64:
      return [&](auto& t) { QueryGradients<64>(t, backward); };
    case KernelId::kQueryGradients128:
      return [&](auto& t) { QueryGradients<128>(t, backward); };
    case KernelId::kQueryGradients256:
      return [&](auto& t) { QueryGradients<256>(t, backward); };
    case KernelId::kKeyGradients64:
      return [&](auto& t) { KeyGradients<64>(t, backward); };
    case KernelId::kKeyGradients128:
      return [&](auto& t) { KeyGradients<128>(t, backward); };
    case KernelId::kKeyGradients256:
      return [&](auto& t) { KeyGradients<256>(t, backward); };
    case KernelId::kReset:
      return [&](auto& t) { ResetRows(t, rows); };
    case KernelId::kRowDots:
      return [&](auto& t) { RowDots(t, rows); };
    case KernelId::kMerge:
      return [&](auto& t) { MergeRows(t, rows); };
    case KernelId::kConvert:
      return [&](auto& t) { ConvertRows(t, rows); };
    case KernelId::kAccumulate:
      return [&](auto& t) { Accumulate(t, accumulate); };
    case KernelId::kMergePartial:
      return [&](auto& t) { MergePartial(t, partial); };
    case KernelId::kBackwardInputs:
      return [&](auto& t) { BackwardInputs(t, partial); };
    case KernelId::kAddRows:
      return [&](auto& t) { AddRows(t, partial); };
    default:
      std::abort();
  }
}

using HopperBody = std::function<void(HopperThread&)>;

HopperBody HopperBodyOf(KernelId kernel, const void* params) {
  const auto& attend = *static_cast<const HopperAttendParams*>(params);
  const auto& backward = *static_cast<const HopperBackwardParams*>(params);
  switch (kernel) {
    case KernelId::kAttendHopperBf16_64:
      return [&](auto& t) { AttendHopper<Bf16, 64>(t, attend); };
    case KernelId::kAttendHopperBf16_128:
      return [&](auto& t) { AttendHopper<Bf16, 128>(t, attend); };
    case KernelId::kAttendHopperF16_64:
      return [&](auto& t) { AttendHopper<F16, 64>(t, attend); };
    case KernelId::kAttendHopperF16_128:
      return [&](auto& t) { AttendHopper<F16, 128>(t, attend); };
    case KernelId::kBackwardHopperBf16_64:
      return [&](auto& t) { AttendBackwardHopper<Bf16, 64>(t, backward); };
    case KernelId::kBackwardHopperBf16_128:
      return [&](auto& t) { AttendBackwardHopper<Bf16, 128>(t, backward); };
    case KernelId::kBackwardHopperF16_64:
      return [&](auto& t) { AttendBackwardHopper<F16, 64>(t, backward); };
    case KernelId::kBackwardHopperF16_128:
      return [&](auto& t) { AttendBackwardHopper<F16, 128>(t, backward); };
    default:
      std::abort();
  }
}

class FakeDriver final : public Driver {
 public:
  FakeDriver() { ++Fake().drivers; }
  ~FakeDriver() override { --Fake().drivers; }

  const DeviceProperties& properties() const override { return Fake().properties; }
  absl::Status MakeCurrent() override { return Try("MakeCurrent"); }

  absl::StatusOr<void*> Allocate(size_t bytes) override {
    return Make("Allocate", bytes, Fake().memory);
  }
  void Free(void* memory) override { Destroy(memory, Fake().memory); }
  absl::Status Copy(const annulusCopyArgs& args, Stream) override {
    ANNULUS_RETURN_IF_ERROR(Try("Copy"));
    for (size_t row = 0; row < args.rows; ++row) {
      std::memcpy(static_cast<uint8_t*>(args.to) + row * args.to_pitch,
                  static_cast<const uint8_t*>(args.from) + row * args.from_pitch, args.row_bytes);
    }
    return absl::OkStatus();
  }
  absl::Status RegisterHost(void* memory, size_t) override {
    ANNULUS_RETURN_IF_ERROR(Try("RegisterHost"));
    const bool fresh = Fake().registered.insert(memory).second;
    return fresh ? absl::OkStatus() : absl::InvalidArgumentError("registered already");
  }
  absl::Status UnregisterHost(void* memory) override {
    ANNULUS_RETURN_IF_ERROR(Try("UnregisterHost"));
    const bool known = Fake().registered.erase(memory) == 1;
    return known ? absl::OkStatus() : absl::InvalidArgumentError("not registered");
  }
  // A handle is an address here: exporter and importer are one process.
  absl::StatusOr<annulusMemoryHandle> Export(const void* memory) override {
    ANNULUS_RETURN_IF_ERROR(Try("Export"));
    annulusMemoryHandle handle = {};
    handle.kind = ANNULUS_MEMORY_CUDA_IPC;
    handle.descriptor = -1;
    handle.bytes = 1;
    std::memcpy(handle.ipc, &memory, sizeof(memory));
    return handle;
  }
  absl::StatusOr<void*> Import(const annulusMemoryHandle& handle) override {
    ANNULUS_RETURN_IF_ERROR(Try("Import"));
    uint8_t* memory = nullptr;
    std::memcpy(&memory, handle.ipc, sizeof(memory));
    Fake().imported.insert(memory + handle.offset);
    return memory + handle.offset;
  }
  absl::Status Release(void* memory) override {
    ANNULUS_RETURN_IF_ERROR(Try("Release"));
    const auto it = Fake().imported.find(memory);
    if (it == Fake().imported.end()) return absl::InvalidArgumentError("not imported");
    Fake().imported.erase(it);
    return absl::OkStatus();
  }
  absl::StatusOr<Stream> CreateStream() override { return Make("CreateStream", 1, Fake().streams); }
  void DestroyStream(Stream stream) override { Destroy(stream, Fake().streams); }
  absl::StatusOr<Event> CreateEvent() override { return Make("CreateEvent", 1, Fake().events); }
  void DestroyEvent(Event event) override { Destroy(event, Fake().events); }
  absl::Status Record(Event, Stream) override { return Try("Record"); }
  absl::StatusOr<bool> Reached(Event) override {
    ANNULUS_RETURN_IF_ERROR(Try("Reached"));
    if (Fake().polls_until_reached == 0) return true;
    --Fake().polls_until_reached;
    return false;
  }
  absl::Status Zero(void* memory, size_t bytes, Stream) override {
    ANNULUS_RETURN_IF_ERROR(Try("Zero"));
    std::memset(memory, 0, bytes);
    return absl::OkStatus();
  }
  absl::StatusOr<TensorMap> EncodeMap(const TensorMapSpec& spec) override {
    ANNULUS_RETURN_IF_ERROR(Try("EncodeMap"));
    return EncodeEmulatedMap(spec);
  }
  absl::Status Launch(KernelId kernel, int64_t blocks, const void* params, Stream) override {
    ANNULUS_RETURN_IF_ERROR(Try("Launch"));
    Fake().launches.push_back({kernel, blocks});
    if (!Fake().run_kernels) return absl::OkStatus();
    const KernelShape& shape = ShapeOf(kernel);
    if (shape.hopper) {
      HopperGrid grid(shape.threads, static_cast<uint32_t>(shape.shared_bytes),
                      Fake().schedule_seed, Fake().resident_blocks);
      grid.Run(blocks, HopperBodyOf(kernel, params));
      return absl::OkStatus();
    }
    BlockEmulator emulator(shape.threads, shape.shared_bytes);
    const Body body = BodyOf(kernel, params);
    for (int64_t block = 0; block < blocks; ++block) emulator.Run(block, body);
    return absl::OkStatus();
  }

 private:
  static absl::Status Try(const std::string& method) {
    return Fake().failing.count(method) == 0 ? absl::OkStatus() : Fake().failure;
  }
  static absl::StatusOr<void*> Make(const std::string& method, size_t bytes,
                                    std::set<void*>& alive) {
    ANNULUS_RETURN_IF_ERROR(Try(method));
    void* made = ::operator new(bytes);
    alive.insert(made);
    return made;
  }
  static void Destroy(void* made, std::set<void*>& alive) {
    if (alive.erase(made) == 0) std::abort();  // never made, or destroyed twice
    ::operator delete(made);
  }
};

}  // namespace

FakeCuda& Fake() {
  static FakeCuda fake;
  return fake;
}

absl::StatusOr<std::unique_ptr<Driver>> OpenDriver(int ordinal) {
  if (Fake().failing.count("Open") != 0) return Fake().failure;
  if (ordinal < 0 || ordinal >= Fake().device_count) {
    return absl::InvalidArgumentError(absl::StrCat(
        "device_ordinal ", ordinal, ", this machine has ", Fake().device_count, " CUDA devices"));
  }
  return std::make_unique<FakeDriver>();
}

}  // namespace annulus::kernels::cuda
