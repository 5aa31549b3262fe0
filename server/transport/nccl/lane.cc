// SPDX-License-Identifier: Apache-2.0
#include "server/transport/nccl/lane.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>

#include "server/transport/host/clock.h"

namespace annulus::transport::nccl {
namespace {

constexpr int64_t kPollNs = 20'000;
constexpr int64_t kSettlePollNs = 100'000;
constexpr int64_t kIdleNs = 100'000'000;
constexpr int64_t kHealthNs = 5'000'000;

annulusTransportStatus StatusOf(Result result) {
  switch (result) {
    case Result::kRemoteError:
      return ANNULUS_TRANSPORT_PEER_LOST;
    case Result::kUnhandledCudaError:
    case Result::kSystemError:
      return ANNULUS_TRANSPORT_RESOURCE;
    default:
      return ANNULUS_TRANSPORT_ABORTED;
  }
}

}  // namespace

Lane::Lane(LaneOptions options, std::shared_ptr<NcclApi> nccl, std::shared_ptr<CudaApi> cuda,
           std::shared_ptr<ReportBox> box)
    : options_(std::move(options)),
      nccl_(std::move(nccl)),
      cuda_(std::move(cuda)),
      box_(std::move(box)) {}

void Lane::Run() {
  ::pthread_setname_np(::pthread_self(), "annulus-nccl");
  if (Good(cuda_->Enter())) {
    absl::StatusOr<Stream> stream = cuda_->CreateStream();
    if (Good(stream.status())) stream_ = *stream;
  }
  while (!halted()) {
    if (std::function<void()> command = Next(); command != nullptr) {
      command();
      continue;
    }
    PollFlights();
    CheckHealth();
    if (!halted()) Sleep(flights_.empty() ? kIdleNs : kPollNs);
  }
  std::unique_lock lock(mutex_);
  out_ = true;
  commands_.clear();
  changed_.notify_all();
  if (!abandoned_) return;
  lock.unlock();
  Release();
}

void Lane::Post(std::function<void()> command) {
  std::lock_guard lock(mutex_);
  if (out_) return;
  commands_.push_back(std::move(command));
  changed_.notify_all();
}

std::function<void()> Lane::Next() {
  std::lock_guard lock(mutex_);
  if (commands_.empty()) return nullptr;
  std::function<void()> command = std::move(commands_.front());
  commands_.pop_front();
  return command;
}

void Lane::Sleep(int64_t limit_ns) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::nanoseconds(limit_ns),
                    [this] { return halted() || !commands_.empty(); });
}

void Lane::MintId() {
  LaneReport minted{.kind = LaneReport::Kind::kIdMinted};
  if (Good(nccl_->GetUniqueId(&minted.id), "ncclGetUniqueId")) Report(std::move(minted));
}

void Lane::Init(const UniqueId& id) {
  Comm comm = nullptr;
  const Result begun =
      nccl_->Init(&comm, options_.membership.size(), id, options_.membership.index, options_.comm);
  comm_.store(comm, std::memory_order_release);
  if (!Good(Settle(begun), "ncclCommInitRankConfig")) return;
  initialised_.store(true, std::memory_order_release);
  profiled_ = ProfiledComm::Find(options_.comm.name, options_.membership.index);
  for (Registration& wanted : registrations_) {
    if (!Good(nccl_->Register(comm, wanted.data, wanted.bytes, &wanted.handle),
              "ncclCommRegister")) {
      return;
    }
  }
  Report({.kind = LaneReport::Kind::kInitialised});
}

void Lane::Enqueue(uint64_t go, const std::vector<std::vector<Call>>& rounds) {
  Flight flight{go, TakeEvent(), TakeEvent(), NowNs()};
  if (profiled_.has_value()) flight.profiled_from = profiled_->posted();
  current_go_ = go;
  if (halted() || !Good(cuda_->Record(flight.start, stream_))) return;
  for (const std::vector<Call>& round : rounds) {
    if (!GroupOf(round)) return;
  }
  if (profiled_.has_value()) flight.profiled_to = profiled_->posted();
  if (!Good(cuda_->Record(flight.end, stream_))) return;
  flights_.push_back(flight);
  current_go_ = 0;
}

bool Lane::GroupOf(const std::vector<Call>& calls) {
  const Comm comm = comm_.load(std::memory_order_acquire);
  if (halted() || !Good(nccl_->GroupStart(), "ncclGroupStart")) return false;
  for (const Call& call : calls) {
    if (halted()) return false;
    const Result result = call.is_send
                              ? nccl_->Send(call.data, call.bytes, call.peer, comm, stream_)
                              : nccl_->Recv(call.data, call.bytes, call.peer, comm, stream_);
    if (result == Result::kInProgress) continue;
    if (!Good(result, call.is_send ? "ncclSend" : "ncclRecv")) return false;
  }
  return !halted() && Good(Settle(nccl_->GroupEnd()), "ncclGroupEnd");
}

void Lane::PollFlights() {
  while (!flights_.empty() && !halted()) {
    const Flight flight = flights_.front();
    current_go_ = flight.go;
    const absl::StatusOr<bool> reached = cuda_->Reached(flight.end);
    if (!Good(reached.status()) || !*reached) return;
    const int64_t end_ns = NowNs();
    const absl::StatusOr<int64_t> elapsed_ns = cuda_->ElapsedNs(flight.start, flight.end);
    if (!Good(elapsed_ns.status())) return;
    flights_.pop_front();
    idle_events_.push_back(flight.start);
    idle_events_.push_back(flight.end);
    current_go_ = 0;
    const GlobaltimerClock::Stamps stamps = StampsOf(flight, *elapsed_ns, end_ns);
    Report({.kind = LaneReport::Kind::kDone,
            .go = flight.go,
            .start_ns = stamps.start_ns,
            .end_ns = stamps.end_ns});
  }
}

GlobaltimerClock::Stamps Lane::StampsOf(const Flight& flight, int64_t elapsed_ns, int64_t seen_ns) {
  if (profiled_.has_value()) {
    const auto span = profiled_->SpanOf(flight.profiled_from, flight.profiled_to);
    if (span.has_value()) {
      const auto mapped = gpu_clock_.Map(*span, flight.called_ns, elapsed_ns, seen_ns);
      if (mapped.has_value()) return *mapped;
    }
  }
  return {std::max(flight.called_ns, seen_ns - elapsed_ns), seen_ns};
}

void Lane::CheckHealth() {
  const int64_t now_ns = NowNs();
  if (!initialised_.load(std::memory_order_acquire) || halted() || now_ns < health_ns_) return;
  health_ns_ = now_ns + kHealthNs;
  Result error = Result::kSuccess;
  if (!Good(nccl_->AsyncError(comm_.load(), &error), "ncclCommGetAsyncError")) return;
  if (error != Result::kInProgress) Good(error, "the communicator");
}

Result Lane::Settle(Result result) {
  const Comm comm = comm_.load(std::memory_order_acquire);
  while (result == Result::kInProgress && !halted()) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, std::chrono::nanoseconds(kSettlePollNs), [this] { return halted(); });
    }
    if (halted()) break;
    const Result asked = nccl_->AsyncError(comm, &result);
    if (asked != Result::kSuccess) return asked;
  }
  return result;
}

bool Lane::WaitFor(CudaApi::Event event) {
  while (!halted()) {
    const absl::StatusOr<bool> reached = cuda_->Reached(event);
    if (!Good(reached.status())) return false;
    if (*reached) return true;
    CheckHealth();
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::nanoseconds(kSettlePollNs), [this] { return halted(); });
  }
  return false;
}

CudaApi::Event Lane::TakeEvent() {
  if (!idle_events_.empty()) {
    CudaApi::Event event = idle_events_.back();
    idle_events_.pop_back();
    return event;
  }
  absl::StatusOr<CudaApi::Event> event = cuda_->CreateEvent();
  if (!Good(event.status())) return nullptr;
  events_.push_back(*event);
  return *event;
}

bool Lane::Good(Result result, const char* call) {
  if (result == Result::kSuccess) return true;
  // In progress: halted while it was. The end has been told by who halted.
  if (result == Result::kInProgress || halted()) return false;
  Fail(StatusOf(result), -1, std::string(call) + ": " + nccl_->Words(result, comm_.load()));
  return false;
}

bool Lane::Good(const absl::Status& status) {
  if (status.ok()) return true;
  if (!halted()) Fail(ANNULUS_TRANSPORT_RESOURCE, -1, std::string(status.message()));
  return false;
}

void Lane::Report(LaneReport report) {
  report.level = options_.membership.level;
  if (!halted()) box_->Put(std::move(report));
}

void Lane::Fail(annulusTransportStatus status, int32_t suspect, const std::string& text) {
  Report({.kind = LaneReport::Kind::kFault,
          .go = current_go_,
          .fault = {status, suspect,
                    std::string(LevelName(options_.membership.level)) + " communicator: " + text}});
  halted_.store(true, std::memory_order_release);
}

void Lane::Halt() {
  std::lock_guard lock(mutex_);
  halted_.store(true, std::memory_order_release);
  changed_.notify_all();
}

bool Lane::WaitOut(int64_t limit_ns) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::nanoseconds(limit_ns), [this] { return out_; });
}

}  // namespace annulus::transport::nccl
