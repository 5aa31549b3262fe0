// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "server/transport/host/handle.h"
#include "server/transport/host/link.h"
#include "server/transport/host/reception.h"
#include "server/transport/transport_plugin.h"

namespace annulus::transport {

// The host transport: a full mesh of links and one progress thread that owns all of them. Callers
// hand operations over through an inbox and wait on the operations themselves; the thread sleeps in
// epoll until a socket, the inbox or a timer wakes it.
//
// Faults: the first one (a lost peer, damage, abort) ends the transport. Every outstanding
// operation completes with its status, every peer is told status, suspect and reason and ends
// likewise. A missed deadline or a mismatch of byte counts fails its own operation only.
//
// Liveness: each link carries a beat five times per peer timeout. A peer is lost when five of our
// own beats in a row went by without a word from it: a thread that was itself not scheduled has not
// missed anything.
class HostTransport final : public LinkOwner {
 public:
  static annulusTransportStatus Open(const annulusTransportOptions& options,
                                     std::unique_ptr<HostTransport>* transport,
                                     annulusTransportHandle* handle);
  // Closes: says goodbye, or aborts when operations are outstanding; within about half a second.
  ~HostTransport();
  HostTransport(const HostTransport&) = delete;
  HostTransport& operator=(const HostTransport&) = delete;

  annulusTransportStatus Connect(const annulusTransportHandle* handles, int64_t deadline_ns);
  annulusTransportStatus Post(bool is_send, int32_t peer, uint64_t tag,
                              const annulusSegment* segments, size_t segment_count,
                              int64_t deadline_ns, OperationPtr* posted);
  void Abort(const char* reason);
  void LastError(char* text, size_t text_bytes, int32_t* peer);
  void Stats(annulusTransportStats* stats);
  void SetNotify(void (*notify)(void*), void* context);
  const char* Path(int32_t peer);

 private:
  enum class Phase { kOpen, kJoining, kUp, kFailed };
  struct Fault {
    annulusTransportStatus status;
    int32_t suspect;
    std::string text;
  };

  HostTransport(HandleInfo self, double peer_timeout_seconds);
  bool Start();
  // Empty when `handles` are this rank's group at its epoch; what is wrong otherwise.
  std::string CheckHandles(const annulusTransportHandle* handles,
                           std::vector<HandleInfo>* infos) const;

  // LinkOwner
  void OnLinkFault(annulusTransportStatus status, int32_t suspect, std::string text) override;
  void OnLinkUp(int32_t peer) override;
  void OnDone(const Operation& operation, annulusTransportStatus status) override;
  void OnNote(int32_t peer, std::string text) override;

  // The progress thread.
  void Run();
  int TimeoutMs() const;
  void HandleEvent(uint64_t key, uint32_t events);
  void TakeInbox();
  void PumpLinks();
  void RunTimers();
  void ApplyFault();
  void StartClosing();
  void NotifyDone();
  bool FinishClosing();

  // host_join.cc: becoming connected, on the progress thread.
  void StartJoining();
  void Dial(int32_t peer);
  void OnDialled(Link* link);
  void SayHello(Link* link);
  void OnAccept(int listener, bool over_unix);
  void OnCaller(uint32_t id);
  std::string AdmitCaller(Reception::Caller* caller, bool* stale);

  void Wake();
  void Watch(int fd, uint64_t key, uint32_t events);
  void MarkDirty(int32_t peer);
  void UpdateInterest(int32_t peer);
  void SetError(int32_t peer, const std::string& text);
  void RequestFault(Fault fault);
  std::string MissingRanks() const;
  Link* link(int32_t peer) { return links_[static_cast<size_t>(peer)].get(); }

  HandleInfo self_;
  const Fence fence_;
  const double peer_timeout_seconds_;
  const int64_t beat_ns_;
  UniqueFd epoll_;
  UniqueFd wake_;
  UniqueFd unix_listener_;
  UniqueFd tcp_listener_;

  // Between callers and the progress thread.
  std::mutex inbox_mutex_;
  std::vector<OperationPtr> posted_;
  std::optional<Fault> requested_fault_;
  int64_t connect_deadline_ns_ = 0;
  bool join_requested_ = false;
  bool closing_requested_ = false;
  bool woken_ = false;
  std::atomic<uint32_t> outstanding_{0};

  std::mutex state_mutex_;
  std::condition_variable state_changed_;
  Phase phase_ = Phase::kOpen;
  annulusTransportStatus failure_ = ANNULUS_TRANSPORT_OK;
  std::string error_text_;
  int32_t error_peer_ = -1;
  void (*notify_)(void*) = nullptr;
  void* notify_context_ = nullptr;
  annulusTransportStats stats_{};

  std::vector<HandleInfo> handles_;  // by rank; written once, before joining

  // The progress thread's own.
  std::vector<std::unique_ptr<Link>> links_;
  std::vector<bool> write_interest_;
  std::vector<bool> dirty_flags_;
  std::vector<int32_t> dirty_;
  std::vector<int32_t> redial_;  // their backlog was full
  int32_t links_awaited_ = 0;
  int32_t links_up_ = 0;
  Reception reception_;
  std::optional<Fault> fault_;
  bool fault_applied_ = false;
  bool completed_some_ = false;
  bool joining_ = false;
  bool closing_ = false;
  int64_t linger_until_ns_ = 0;
  int64_t next_beat_ns_ = 0;
  int64_t next_deadline_ns_;

  std::thread thread_;  // last: it uses everything above
};

}  // namespace annulus::transport
