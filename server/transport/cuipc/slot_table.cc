// SPDX-License-Identifier: Apache-2.0
#include "server/transport/cuipc/slot_table.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

namespace annulus::transport::cuipc {
namespace {

enum State : uint64_t { kFree = 0, kOffered = 1, kTaken = 2, kFinished = 3 };

constexpr size_t kDirectionBytes = kSlots * sizeof(uint64_t);
constexpr size_t kTableBytes = 2 * kDirectionBytes;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

uint64_t WordOf(const SlotTicket& ticket, State state) { return ticket.generation << 2 | state; }

void* Map(int fd) {
  void* base = ::mmap(nullptr, kTableBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return base == MAP_FAILED ? nullptr : base;
}

}  // namespace

std::unique_ptr<SlotTable> SlotTable::Create(UniqueFd* fd) {
  UniqueFd memory(::memfd_create("annulus-slots", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory || ::ftruncate(memory.get(), kTableBytes) != 0 ||
      ::fcntl(memory.get(), F_ADD_SEALS, kSeals) != 0) {
    return nullptr;
  }
  void* base = Map(memory.get());
  if (base == nullptr) return nullptr;
  *fd = std::move(memory);
  return std::unique_ptr<SlotTable>(new SlotTable(base, true));
}

std::unique_ptr<SlotTable> SlotTable::Adopt(const UniqueFd& fd) {
  struct stat info {};
  if (!fd || ::fcntl(fd.get(), F_GET_SEALS) != kSeals || ::fstat(fd.get(), &info) != 0 ||
      info.st_size != static_cast<off_t>(kTableBytes)) {
    return nullptr;
  }
  void* base = Map(fd.get());
  if (base == nullptr) return nullptr;
  return std::unique_ptr<SlotTable>(new SlotTable(base, false));
}

SlotTable::SlotTable(void* base, bool creator)
    : base_(base),
      mine_(static_cast<Word*>(base) + (creator ? 0 : kSlots)),
      theirs_(static_cast<Word*>(base) + (creator ? kSlots : 0)) {
  for (uint32_t slot = kSlots; slot > 0; --slot) free_.push_back(slot - 1);
}

SlotTable::~SlotTable() { ::munmap(base_, kTableBytes); }

std::optional<SlotTicket> SlotTable::Offer() {
  if (free_.empty()) return std::nullopt;
  const SlotTicket ticket{free_.back(), ++generation_};
  free_.pop_back();
  mine_[ticket.slot].store(WordOf(ticket, kOffered));
  return ticket;
}

bool SlotTable::Withdraw(const SlotTicket& ticket) {
  uint64_t expected = WordOf(ticket, kOffered);
  return mine_[ticket.slot].compare_exchange_strong(expected, WordOf(ticket, kFree));
}

bool SlotTable::Finished(const SlotTicket& ticket) const {
  return mine_[ticket.slot].load() == WordOf(ticket, kFinished);
}

void SlotTable::Return(const SlotTicket& ticket) {
  mine_[ticket.slot].store(WordOf(ticket, kFree));
  free_.push_back(ticket.slot);
}

bool SlotTable::Take(const SlotTicket& ticket) {
  if (ticket.slot >= kSlots) return false;
  uint64_t expected = WordOf(ticket, kOffered);
  return theirs_[ticket.slot].compare_exchange_strong(expected, WordOf(ticket, kTaken));
}

void SlotTable::Finish(const SlotTicket& ticket) {
  theirs_[ticket.slot].store(WordOf(ticket, kFinished));
}

}  // namespace annulus::transport::cuipc
