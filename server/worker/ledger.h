// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <list>
#include <mutex>
#include <string_view>

#include "absl/status/statusor.h"

namespace annulus::worker {

// Counts the bytes that a worker holds, against a limit. Bytes are reserved before they are
// allocated, always, so that overload is refused before memory runs out.
//
//   ANNULUS_ASSIGN_OR_RETURN(Ledger::Reservation slots, ledger.Reserve(bytes, "ring slots"));
//   ... allocate; the bytes are given back when `slots` goes ...
//
// Reserved bytes are either used or idle (kept for the next request); idle ones count against the
// limit but not as used. Thread safe. The ledger outlives its reservations and watches.
class Ledger {
 public:
  // limit_bytes 0: no limit, only counting.
  explicit Ledger(uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  class Reservation {
   public:
    Reservation() = default;
    Reservation(Reservation&& other) noexcept { *this = std::move(other); }
    Reservation& operator=(Reservation&& other) noexcept;
    ~Reservation() { Release(); }

    uint64_t bytes() const { return bytes_; }
    void SetIdle(bool idle);

   private:
    friend class Ledger;
    Reservation(Ledger* ledger, uint64_t bytes) : ledger_(ledger), bytes_(bytes) {}
    void Release();

    Ledger* ledger_ = nullptr;
    uint64_t bytes_ = 0;
    bool idle_ = false;
  };

  // Remembers the highest number of used bytes during its life.
  class PeakWatch {
   public:
    explicit PeakWatch(Ledger* ledger);
    ~PeakWatch();
    PeakWatch(const PeakWatch&) = delete;
    PeakWatch& operator=(const PeakWatch&) = delete;
    uint64_t peak_bytes() const;

   private:
    friend class Ledger;
    Ledger* ledger_;
    uint64_t peak_bytes_ = 0;
    std::list<PeakWatch*>::iterator place_;
  };

  // RESOURCE_EXHAUSTED with the bytes asked, used and allowed; `what` says what for.
  absl::StatusOr<Reservation> Reserve(uint64_t bytes, std::string_view what);
  // Whether Reserve would succeed if nothing were idle, and as it is.
  bool FitsWithoutIdle(uint64_t bytes) const;
  bool FitsNow(uint64_t bytes) const;

  uint64_t limit_bytes() const { return limit_bytes_; }
  uint64_t used_bytes() const;
  uint64_t idle_bytes() const;
  uint64_t peak_bytes() const;

 private:
  bool Fits(uint64_t held, uint64_t bytes) const {
    return limit_bytes_ == 0 || (held <= limit_bytes_ && bytes <= limit_bytes_ - held);
  }
  void NotePeak();  // with mutex_ held

  const uint64_t limit_bytes_;
  mutable std::mutex mutex_;
  uint64_t used_bytes_ = 0;        // guarded by mutex_
  uint64_t idle_bytes_ = 0;        // guarded by mutex_
  uint64_t peak_bytes_ = 0;        // guarded by mutex_
  std::list<PeakWatch*> watches_;  // guarded by mutex_
};

}  // namespace annulus::worker
