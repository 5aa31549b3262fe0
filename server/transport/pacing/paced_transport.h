// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "server/transport/host/unique_fd.h"
#include "server/transport/pacing/pacing.h"

namespace annulus::transport {

// One operation on an emulated wire. Owned by the pacing thread once posted, but for `done`.
struct PacedOperation {
  enum class Stage {
    kMoving,    // the bytes are on their way, underneath
    kAgreeing,  // the two sides settle when the wires carry them
    kTimed,     // that time has to pass
    kOver,      // completed; the requests underneath may still have to be returned
  };

  bool is_send = false;
  int32_t peer = -1;
  uint64_t tag = 0;
  uint64_t bytes = 0;
  int64_t deadline_ns = 0;
  Wire* wire = nullptr;  // null: not emulated

  Stage stage = Stage::kMoving;
  annulusRequest* data = nullptr;
  annulusRequest* word_in = nullptr;   // the peer's word on the start time
  annulusRequest* word_out = nullptr;  // ours
  int64_t heard_ns = 0;
  int64_t said_ns = 0;
  annulusCompletion moved{};
  int64_t start_ns = 0;
  int64_t finish_ns = 0;

  std::atomic<uint32_t> done{0};  // released after `completion` is written
  annulusCompletion completion{};
};

using PacedOperationPtr = std::shared_ptr<PacedOperation>;

// See PacingTransport. One thread per transport sleeps until the transport underneath completes
// something or an emulated transfer ends.
class PacedTransport {
 public:
  static annulusTransportStatus Open(const annulusTransportV1* inner, const PacingModel& model,
                                     const annulusTransportOptions& options,
                                     std::unique_ptr<PacedTransport>* transport,
                                     annulusTransportHandle* handle);
  ~PacedTransport();
  PacedTransport(const PacedTransport&) = delete;
  PacedTransport& operator=(const PacedTransport&) = delete;

  annulusTransportStatus Connect(const annulusTransportHandle* handles, int64_t deadline_ns);
  annulusTransportStatus Post(bool is_send, int32_t peer, uint64_t tag,
                              const annulusSegment* segments, size_t segment_count,
                              int64_t deadline_ns, PacedOperationPtr* operation);
  void Abort(const char* reason);
  void LastError(char* text, size_t text_bytes, int32_t* peer);
  void Stats(annulusTransportStats* stats);
  void SetNotify(void (*notify)(void*), void* context);
  const char* Path(int32_t peer) { return inner_->path(transport_, peer); }

 private:
  PacedTransport(const annulusTransportV1* inner, const PacingModel& model, int32_t rank,
                 int32_t size);
  Wire* WireTo(int32_t peer, bool out);
  annulusTransportStatus PostWord(PacedOperation* operation, bool out);

  // The pacing thread.
  void Run();
  int64_t SleepNs(int64_t now_ns) const;
  void AdvanceAll();
  // True when the operation went a stage further.
  bool Advance(PacedOperation* operation, int64_t now_ns);
  bool OnMoving(PacedOperation* operation, int64_t now_ns);
  bool OnAgreeing(PacedOperation* operation, int64_t now_ns);
  bool OnTimed(PacedOperation* operation, int64_t now_ns);
  void Conclude(PacedOperation* operation, annulusTransportStatus status, int64_t start_ns,
                int64_t end_ns);
  bool Take(annulusRequest** request, annulusCompletion* end);
  bool ReturnRequests(PacedOperation* operation);
  void Wake();
  void SetError(int32_t peer, std::string text);

  const annulusTransportV1* const inner_;
  const PacingModel model_;
  const int32_t rank_;
  const int32_t size_;
  bool notified_ = false;  // the transport underneath tells of completions
  annulusTransport* transport_ = nullptr;
  UniqueFd wake_;

  std::mutex mutex_;
  std::vector<PacedOperationPtr> posted_;
  bool aborted_ = false;
  bool closed_ = false;  // the transport underneath is closed: everything there is complete
  std::string error_text_;
  int32_t error_peer_ = -1;
  annulusTransportStats stats_{};
  void (*notify_)(void*) = nullptr;
  void* notify_context_ = nullptr;

  Wire out_[2];  // by level
  Wire in_[2];
  std::list<PacedOperationPtr> operations_;
  bool cut_short_ = false;  // aborted or closed: no waiting for emulated time
  bool completed_some_ = false;

  std::thread thread_;
};

}  // namespace annulus::transport
