// SPDX-License-Identifier: Apache-2.0
#include "server/transport/cuipc/peer.h"

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace annulus::transport::cuipc {
namespace {

SharedMemory Named(uint64_t id) {
  SharedMemory memory;
  memory.allocation.id = id;
  return memory;
}

}  // namespace

Peer::Peer(CopyDevice* device, std::unique_ptr<SideChannel> side)
    : device_(device), side_(std::move(side)) {}

Peer::~Peer() {
  if (copying_ > 0) return;  // copies that never ended keep their stream and what they write to
  if (stream_ != nullptr) device_->DestroyStream(stream_);
  for (auto& [id, import] : imports_) {
    if (import.mapped != nullptr) device_->Release(import.mapped);
  }
}

absl::Status Peer::Share(const std::vector<Allocation>& memory) {
  bool swept = false;
  for (const Allocation& allocation : memory) {
    if (told_.count(allocation.id) != 0) continue;
    if (!swept) {
      swept = true;
      std::vector<uint64_t> gone;
      for (const auto& [id, known] : told_) {
        const auto found = device_->Find(PointerTo(known.base));
        if (!found.ok() || found->id != id) gone.push_back(id);
      }
      for (const uint64_t id : gone) Forget(id);
    }
    ANNULUS_ASSIGN_OR_RETURN(SharedMemory shared, device_->Export(allocation));
    told_.emplace(allocation.id, allocation);
    Queue(NewsType::kExport, std::move(shared));
  }
  return absl::OkStatus();
}

void Peer::Queue(NewsType type, SharedMemory memory) {
  outbox_.emplace_back(type, std::move(memory));
  Flush();
}

bool Peer::Flush() {
  while (!outbox_.empty() && (ended_ || side_->Tell(outbox_.front().first, outbox_.front().second)))
    outbox_.pop_front();
  return outbox_.empty();
}

void Peer::Forget(uint64_t id) {
  if (told_.erase(id) == 0) return;
  unconfirmed_.insert(id);
  Queue(NewsType::kForget, Named(id));
}

absl::Status Peer::Hear() {
  while (!ended_) {
    News news = side_->Next();
    const uint64_t id = news.memory.allocation.id;
    switch (news.type) {
      case NewsType::kNone:
        return absl::OkStatus();
      case NewsType::kExport:
        if (!imports_.emplace(id, Import{std::move(news.memory)}).second) {
          return absl::InvalidArgumentError(absl::StrCat("allocation ", id, " was shared twice"));
        }
        break;
      case NewsType::kForget:
        to_unmap_.push_back(id);
        break;
      case NewsType::kForgotten:
        unconfirmed_.erase(id);
        break;
      case NewsType::kEnd:
        for (const auto& [each, import] : imports_) to_unmap_.push_back(each);
        ended_ = true;
        break;
    }
    Unmap();
  }
  return absl::OkStatus();
}

void Peer::Unmap() {
  if (copying_ > 0) return;
  for (const uint64_t id : to_unmap_) {
    const auto found = imports_.find(id);
    if (found == imports_.end()) continue;
    if (found->second.mapped != nullptr) device_->Release(found->second.mapped);
    imports_.erase(found);
    Queue(NewsType::kForgotten, Named(id));
  }
  to_unmap_.clear();
  if (ended_) side_->End();  // the peer waits for this before its memory is its own again
}

absl::StatusOr<std::vector<uint64_t>> Peer::Resolve(const std::vector<Piece>& pieces) {
  ANNULUS_RETURN_IF_ERROR(Hear());
  std::vector<uint64_t> bases;
  bases.reserve(pieces.size());
  for (const Piece& piece : pieces) {
    const auto found = imports_.find(piece.memory);
    if (found == imports_.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("allocation ", piece.memory, " was never shared"));
    }
    Import& import = found->second;
    const uint64_t size = import.memory.allocation.bytes;
    if (piece.bytes > size || piece.offset > size - piece.bytes) {
      return absl::InvalidArgumentError(absl::StrCat(piece.bytes, " bytes at ", piece.offset,
                                                     " of an allocation of ", size, " bytes"));
    }
    if (import.mapped == nullptr) {
      ANNULUS_ASSIGN_OR_RETURN(import.mapped, device_->Import(import.memory, side_->own_process()));
      import.memory.descriptor.Reset();
    }
    bases.push_back(reinterpret_cast<uint64_t>(import.mapped));
  }
  return bases;
}

absl::StatusOr<CopyDevice::Stream> Peer::StreamFor() {
  if (stream_ == nullptr) {
    ANNULUS_ASSIGN_OR_RETURN(stream_, device_->CreateStream());
  }
  return stream_;
}

void Peer::EndCopying() {
  --copying_;
  Unmap();
}

}  // namespace annulus::transport::cuipc
