// SPDX-License-Identifier: Apache-2.0
#include "server/worker/ledger.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/fault_info.h"

namespace annulus::worker {

Ledger::Reservation& Ledger::Reservation::operator=(Reservation&& other) noexcept {
  if (this != &other) {
    Release();
    ledger_ = std::exchange(other.ledger_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    idle_ = std::exchange(other.idle_, false);
  }
  return *this;
}

void Ledger::Reservation::Release() {
  if (ledger_ == nullptr) return;
  std::lock_guard lock(ledger_->mutex_);
  (idle_ ? ledger_->idle_bytes_ : ledger_->used_bytes_) -= bytes_;
  ledger_ = nullptr;
}

void Ledger::Reservation::SetIdle(bool idle) {
  if (ledger_ == nullptr || idle == idle_) return;
  std::lock_guard lock(ledger_->mutex_);
  (idle_ ? ledger_->idle_bytes_ : ledger_->used_bytes_) -= bytes_;
  (idle ? ledger_->idle_bytes_ : ledger_->used_bytes_) += bytes_;
  idle_ = idle;
  ledger_->NotePeak();
}

Ledger::PeakWatch::PeakWatch(Ledger* ledger) : ledger_(ledger) {
  std::lock_guard lock(ledger_->mutex_);
  peak_bytes_ = ledger_->used_bytes_;
  place_ = ledger_->watches_.insert(ledger_->watches_.end(), this);
}

Ledger::PeakWatch::~PeakWatch() {
  std::lock_guard lock(ledger_->mutex_);
  ledger_->watches_.erase(place_);
}

uint64_t Ledger::PeakWatch::peak_bytes() const {
  std::lock_guard lock(ledger_->mutex_);
  return peak_bytes_;
}

absl::StatusOr<Ledger::Reservation> Ledger::Reserve(uint64_t bytes, std::string_view what) {
  std::lock_guard lock(mutex_);
  if (!Fits(used_bytes_ + idle_bytes_, bytes)) {
    return WithFaultInfo(
        absl::ResourceExhaustedError(absl::StrCat(
            absl::string_view(what.data(), what.size()), " needs ", bytes, " bytes; ", used_bytes_,
            " of the limit of ", limit_bytes_, " are in use on this worker")),
        {"MEMORY_LIMIT",
         {{"asked_bytes", absl::StrCat(bytes)},
          {"used_bytes", absl::StrCat(used_bytes_)},
          {"limit_bytes", absl::StrCat(limit_bytes_)}}});
  }
  used_bytes_ += bytes;
  NotePeak();
  return Reservation(this, bytes);
}

bool Ledger::FitsWithoutIdle(uint64_t bytes) const {
  std::lock_guard lock(mutex_);
  return Fits(used_bytes_, bytes);
}

bool Ledger::FitsNow(uint64_t bytes) const {
  std::lock_guard lock(mutex_);
  return Fits(used_bytes_ + idle_bytes_, bytes);
}

uint64_t Ledger::used_bytes() const {
  std::lock_guard lock(mutex_);
  return used_bytes_;
}

uint64_t Ledger::idle_bytes() const {
  std::lock_guard lock(mutex_);
  return idle_bytes_;
}

uint64_t Ledger::peak_bytes() const {
  std::lock_guard lock(mutex_);
  return peak_bytes_;
}

void Ledger::NotePeak() {
  peak_bytes_ = std::max(peak_bytes_, used_bytes_);
  for (PeakWatch* watch : watches_) watch->peak_bytes_ = std::max(watch->peak_bytes_, used_bytes_);
}

}  // namespace annulus::worker
