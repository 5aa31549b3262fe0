// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "server/transport/nccl/control.h"
#include "server/transport/nccl/leader.h"
#include "server/transport/nccl/seat.h"
#include "server/transport/nccl/settings.h"

namespace annulus::transport::nccl {

// The NCCL transport: a control transport, a seat in up to two communicators, and one progress
// thread that owns all of it and never calls NCCL. Callers hand operations over through an inbox
// and wait on the operations themselves.
//
// Phases: open -> joining (the control transport is connected, the communicators come up) -> up.
// The first fault, whoever saw it, ends the transport of every rank: the control transport's abort
// tells all of them status, suspect and words.
class NcclTransport final : public SeatOwner, public LeaderOwner {
 public:
  // What cannot be loaded here (no library, no GPU) is told by Connect, in words and to all ranks.
  static annulusTransportStatus Open(const annulusTransportOptions& options,
                                     std::unique_ptr<NcclTransport>* transport,
                                     annulusTransportHandle* handle);
  // Closes: leaves in good order, or aborts when operations are outstanding. Takes a few times
  // Settings::abort_ns at most.
  ~NcclTransport();
  NcclTransport(const NcclTransport&) = delete;
  NcclTransport& operator=(const NcclTransport&) = delete;

  annulusTransportStatus Connect(const annulusTransportHandle* handles, int64_t deadline_ns);
  annulusTransportStatus Post(bool is_send, int32_t peer, uint64_t tag,
                              const annulusSegment* segments, size_t segment_count,
                              int64_t deadline_ns, OperationPtr* operation);
  void GroupBegin();
  annulusTransportStatus GroupEnd();
  // Both block while NCCL works, within Settings::abort_ns.
  annulusTransportStatus RegisterMemory(void* data, size_t bytes);
  annulusTransportStatus DeregisterMemory(void* data);
  void Abort(const char* reason);
  void LastError(char* text, size_t text_bytes, int32_t* peer);
  void Stats(annulusTransportStats* stats);
  void SetNotify(void (*notify)(void*), void* context);
  const char* Path(int32_t peer) const;

 private:
  enum class Phase { kOpen, kJoining, kUp, kFailed };
  struct Circle {
    Membership membership;
    std::unique_ptr<Seat> seat;
    std::unique_ptr<Leader> leader;  // null unless this rank leads
  };
  // A message of this rank to itself.
  struct Local {
    Circle* circle;
    bool for_leader;
    Message message;
  };

  explicit NcclTransport(const annulusTransportOptions& options);
  // What is wrong with the choice of peers; "" for nothing.
  std::string CheckPeers(const std::vector<bool>& is_peer) const;
  Circle* CircleOf(int32_t peer);
  Circle* CircleOf(annulusLevel level);
  Circle* CircleOf(const Membership& membership) { return CircleOf(membership.level); }

  // SeatOwner, LeaderOwner
  void ToLeader(const Membership& membership, const Message& message) override;
  void ToMember(const Membership& membership, int32_t member, const Message& message) override;
  void MintId(const Membership& membership) override;
  void OnJoined() override;
  void OnFault(Fault fault) override;
  void OnNote(int32_t peer, const std::string& text) override;
  void OnDone(const Operation& operation) override;

  // The progress thread.
  void Run();
  void Sleep();
  void TakeInbox();
  void TakeBatch(const Batch& batch);
  void StartJoining();
  bool LeftOut(const Membership& membership) const;
  void InitNext();
  void HandleControl();
  void HandleReports();
  void DeliverLocal();
  void RunTimers();
  void ApplyFault();
  void GiveUpStopping();
  void StartClosing();
  bool FinishClosing();
  void NotifyDone();
  int64_t JoinLimitNs() const;
  std::string JoiningWords(int32_t* suspect) const;
  bool busy() const;

  void Wake();
  void SetError(int32_t peer, const std::string& text);

  const Settings settings_;
  const int32_t rank_;
  const int32_t size_;
  const int32_t window_;
  absl::Status loaded_;
  Facts facts_;
  std::vector<Circle> circles_;
  std::unique_ptr<Control> control_;
  std::shared_ptr<ReportBox> box_;

  // Between callers and the progress thread.
  std::mutex inbox_mutex_;
  std::condition_variable woken_changed_;
  bool woken_ = false;
  std::vector<Batch> posted_;
  std::map<std::thread::id, Batch> groups_;  // begun, not ended
  std::optional<Fault> requested_fault_;
  bool join_requested_ = false;
  bool closing_requested_ = false;
  int64_t join_deadline_ns_ = 0;
  std::atomic<uint32_t> outstanding_{0};

  mutable std::mutex state_mutex_;
  std::condition_variable state_changed_;
  Phase phase_ = Phase::kOpen;
  std::vector<bool> is_peer_;  // by rank; all until Connect says otherwise
  annulusTransportStatus failure_ = ANNULUS_TRANSPORT_OK;
  std::string error_text_;
  int32_t error_peer_ = -1;
  void (*notify_)(void*) = nullptr;
  void* notify_context_ = nullptr;
  uint64_t sent_bytes_ = 0;
  uint64_t received_bytes_ = 0;

  // The progress thread's own.
  std::deque<Local> local_;
  std::optional<Fault> fault_;
  bool fault_applied_ = false;
  int64_t stop_limit_ns_ = 0;
  bool joining_ = false;
  bool connected_ = false;  // the control transport is
  bool closing_ = false;
  bool leaving_ = false;
  int64_t leave_limit_ns_ = 0;
  bool completed_some_ = false;

  std::thread thread_;  // last: it uses everything above
};

}  // namespace annulus::transport::nccl
