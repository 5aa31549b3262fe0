// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn/scratch.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace annulus::kernels::cuda {

Scratch::~Scratch() {
  for (const auto& [stream, arena] : arenas_) Free(arena);
}

absl::StatusOr<char*> Scratch::Reserve(Driver::Stream stream, size_t bytes) {
  if (bytes > kBytesMax) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "provider cudnn: a piece of this call takes ", bytes, " bytes of scratch memory, at most ",
        kBytesMax, "; attend fewer rows at a time, or take another provider"));
  }
  Arena& arena = arenas_[stream];
  if (bytes <= arena.bytes) return arena.memory;
  const size_t grown = std::min(std::max(bytes, arena.bytes + arena.bytes / 2), kBytesMax);
  ANNULUS_ASSIGN_OR_RETURN(void* const memory, driver_->Allocate(grown));
  if (arena.memory != nullptr) arena.outgrown.push_back(arena.memory);
  arena.memory = static_cast<char*>(memory);
  arena.bytes = grown;
  return arena.memory;
}

void Scratch::Release(Driver::Stream stream) {
  const auto found = arenas_.find(stream);
  if (found == arenas_.end()) return;
  Free(found->second);
  arenas_.erase(found);
}

void Scratch::Free(const Arena& arena) {
  if (arena.memory != nullptr) driver_->Free(arena.memory);
  for (void* memory : arena.outgrown) driver_->Free(memory);
}

}  // namespace annulus::kernels::cuda
