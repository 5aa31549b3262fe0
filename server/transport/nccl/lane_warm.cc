// SPDX-License-Identifier: Apache-2.0
// The first exchange of a communicator. NCCL connects an edge at its first use and blocks until the
// other side is there as well: that belongs before the first step, under the deadline of connect.
#include "server/transport/nccl/lane.h"

namespace annulus::transport::nccl {
namespace {

constexpr size_t kPayloadBytes = 4096;

}  // namespace

std::string Lane::Payload(int32_t from, int32_t to, bool forwards) const {
  const std::string word = "epoch " + std::to_string(options_.epoch) + " " +
                           LevelName(options_.membership.level) + " " + std::to_string(from) +
                           (forwards ? " > " : " < ") + std::to_string(to) + ";";
  std::string payload;
  while (payload.size() < kPayloadBytes) payload += word;
  payload.resize(kPayloadBytes);
  return payload;
}

void Lane::Warm() {
  const int32_t size = options_.membership.size();
  const int32_t self = options_.membership.index;
  const int32_t next = (self + 1) % size;
  const int32_t previous = (self + size - 1) % size;
  warm_out_ = Payload(self, next, true) + Payload(self, previous, false);
  warm_in_.assign(2 * kPayloadBytes, '\0');
  const CudaApi::Event arrived = TakeEvent();
  if (halted()) return;
  const absl::StatusOr<void*> memory = cuda_->Allocate(4 * kPayloadBytes);
  if (!Good(memory.status())) return;
  warm_memory_ = *memory;
  auto* const out = static_cast<char*>(warm_memory_);
  char* const in = out + 2 * kPayloadBytes;
  const std::vector<Call> calls = {{true, next, out, kPayloadBytes},
                                   {false, previous, in, kPayloadBytes},
                                   {true, previous, out + kPayloadBytes, kPayloadBytes},
                                   {false, next, in + kPayloadBytes, kPayloadBytes}};
  if (!Good(cuda_->CopyIn(out, warm_out_.data(), warm_out_.size(), stream_)) || !GroupOf(calls) ||
      !Good(cuda_->CopyOut(warm_in_.data(), in, warm_in_.size(), stream_)) ||
      !Good(cuda_->Record(arrived, stream_)) || !WaitFor(arrived)) {
    return;
  }
  idle_events_.push_back(arrived);
  cuda_->Free(warm_memory_);
  warm_memory_ = nullptr;
  CheckPayload(warm_in_.substr(0, kPayloadBytes), previous, true);
  CheckPayload(warm_in_.substr(kPayloadBytes), next, false);
  Report({.kind = LaneReport::Kind::kWarmed});
}

void Lane::CheckPayload(const std::string& got, int32_t from, bool forwards) {
  if (halted() || got == Payload(from, options_.membership.index, forwards)) return;
  const int32_t rank = options_.membership.ranks[static_cast<size_t>(from)];
  Fail(ANNULUS_TRANSPORT_CORRUPTED, rank,
       "the first payload from peer " + std::to_string(rank) + " is not what it sent");
}

}  // namespace annulus::transport::nccl
