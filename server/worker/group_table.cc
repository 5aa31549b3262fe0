// SPDX-License-Identifier: Apache-2.0
#include "server/worker/group_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/fault_info.h"
#include "server/base/status_macros.h"
#include "server/transport/pacing/null_transport.h"
#include "server/transport/pacing/pacing.h"
#include "server/worker/clock.h"

namespace annulus::worker {
namespace {

absl::Status Stale(const std::string& group, uint64_t known, uint64_t got) {
  return WithFaultInfo(
      absl::FailedPreconditionError(
          absl::StrCat("group ", group, " is at epoch ", known, ", got the stale epoch ", got)),
      {"STALE_EPOCH",
       {{"group", group}, {"epoch", absl::StrCat(got)}, {"known_epoch", absl::StrCat(known)}}});
}

absl::Status NotReady(const std::string& group, uint64_t epoch, const char* why) {
  return WithFaultInfo(
      absl::UnavailableError(absl::StrCat("group ", group, " at epoch ", epoch, ": ", why)),
      {"GROUP_NOT_READY", {{"group", group}, {"epoch", absl::StrCat(epoch)}}});
}

absl::Status CheckAssignment(const GroupAssignment& assignment) {
  const size_t size = static_cast<size_t>(assignment.size);
  if (assignment.size < 1 || assignment.rank < 0 || assignment.rank >= assignment.size) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", assignment.rank, " of a group of ", assignment.size));
  }
  if (assignment.epoch == 0) return absl::InvalidArgumentError("epochs start at 1, got 0");
  for (const auto* names : {&assignment.workers, &assignment.nodes, &assignment.host_ids}) {
    if (!names->empty() && names->size() != size) {
      return absl::InvalidArgumentError(
          absl::StrCat("got ", names->size(), " names for a group of ", size));
    }
  }
  return absl::OkStatus();
}

transport::PacingModel NodesOf(const GroupAssignment& assignment) {
  transport::PacingModel model;
  model.inner = assignment.inner_link;
  model.outer = assignment.outer_link;
  model.ranks_per_node = std::max(assignment.ranks_per_node, 1);
  if (assignment.ranks_per_node > 0 || assignment.nodes.empty()) return model;
  std::map<std::string, int32_t> numbers;
  for (const std::string& node : assignment.nodes) {
    const auto next = static_cast<int32_t>(numbers.size());
    model.nodes.push_back(numbers.emplace(node, next).first->second);
  }
  return model;
}

std::vector<annulusLevel> LevelsOf(const GroupAssignment& assignment,
                                   const transport::PacingModel& model) {
  std::vector<annulusLevel> levels;
  levels.reserve(assignment.size);
  for (int peer = 0; peer < assignment.size; ++peer) {
    levels.push_back(transport::LevelBetween(model, assignment.rank, peer));
  }
  return levels;
}

FaultVerdict Ended(const std::string& group, uint64_t epoch, const std::string& message) {
  FaultVerdict verdict;
  verdict.group = group;
  verdict.epoch = epoch;
  verdict.reason = "RELEASED";
  verdict.message = message;
  return verdict;
}

}  // namespace

GroupTable::~GroupTable() { FaultAll("RELEASED"); }

absl::StatusOr<const annulusTransportV1*> GroupTable::FindTransport(const std::string& name) const {
  std::string known;
  for (const annulusTransportV1* table : options_.transports) {
    if (name.empty() || name == table->name) return table;
    absl::StrAppend(&known, known.empty() ? "" : ", ", table->name);
  }
  if (known.empty()) return absl::FailedPreconditionError("this worker has no transport plugin");
  return absl::FailedPreconditionError(
      absl::StrCat("this worker has no transport '", name, "' (it has ", known, ")"));
}

absl::StatusOr<std::unique_ptr<transport::Transport>> GroupTable::OpenTransport(
    const GroupAssignment& assignment) const {
  if (assignment.size == 1) return nullptr;
  transport::TransportOptions options;
  options.group = assignment.group;
  options.epoch = assignment.epoch;
  options.rank = assignment.rank;
  options.size = assignment.size;
  options.host_id = options_.host_id;
  options.bind_address = options_.bind_address;
  options.peer_timeout_seconds = options_.peer_timeout_seconds;
  options.window_size = assignment.window_size;
  options.device_ordinal = device_ordinal_;
  if (assignment.transfers_off) {
    return transport::Transport::Open(transport::NullTransport(), options);
  }
  const std::string& inner_name = assignment.inner_transport;
  const std::string& outer_name = assignment.outer_transport;
  ANNULUS_ASSIGN_OR_RETURN(const annulusTransportV1* inner,
                           FindTransport(inner_name.empty() ? outer_name : inner_name));
  ANNULUS_ASSIGN_OR_RETURN(const annulusTransportV1* outer,
                           FindTransport(outer_name.empty() ? inner_name : outer_name));
  const bool emulated =
      assignment.inner_link.bytes_per_second > 0 || assignment.outer_link.bytes_per_second > 0;
  const transport::PacingModel model = NodesOf(assignment);
  if (inner != outer && emulated) {
    return absl::FailedPreconditionError(
        absl::StrCat("emulated links go with one transport for both levels, got ", inner->name,
                     " inside nodes and ", outer->name, " between them"));
  }
  if (inner != outer) {
    return transport::Transport::OpenByLevel({inner, outer}, LevelsOf(assignment, model), options);
  }
  if (!emulated) return transport::Transport::Open(inner, options);
  if ((inner->caps & ANNULUS_TRANSPORT_CAP_HOST_MEMORY) == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("emulated links take a transport that moves the host's memory, which \"",
                     inner->name, "\" does not"));
  }
  // The model is the process's, taken by each open: nobody may change it in between.
  static std::mutex model_mutex;
  std::lock_guard lock(model_mutex);
  return transport::Transport::Open(transport::PacingTransport(inner, model), options);
}

absl::Status GroupTable::Claim(const GroupAssignment& assignment, std::shared_ptr<Group>* before) {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(assignment.group);
  if (it == entries_.end()) {
    // Names of groups long gone make room; their epochs are remembered while there is any.
    for (auto old = entries_.begin(); entries_.size() >= kGroupsMax && old != entries_.end();) {
      old = old->second.group == nullptr ? entries_.erase(old) : std::next(old);
    }
    if (entries_.size() >= kGroupsMax) {
      return absl::ResourceExhaustedError(
          absl::StrCat("this worker is in ", kGroupsMax, " groups already"));
    }
    entries_[assignment.group] = {assignment.epoch, nullptr};
    return absl::OkStatus();
  }
  Entry& entry = it->second;
  if (assignment.epoch <= entry.epoch) {
    return Stale(assignment.group, entry.epoch, assignment.epoch);
  }
  *before = std::exchange(entry.group, nullptr);
  entry.epoch = assignment.epoch;
  return absl::OkStatus();
}

absl::StatusOr<RankHandles> GroupTable::Prepare(const GroupAssignment& assignment) {
  ANNULUS_RETURN_IF_ERROR(CheckAssignment(assignment));
  if (const auto known = Find(assignment.group, assignment.epoch);
      known.ok() && (*known)->state() != Group::State::kOver) {
    return (*known)->handles();
  }
  std::shared_ptr<Group> before;
  ANNULUS_RETURN_IF_ERROR(Claim(assignment, &before));
  if (before != nullptr) {
    before->Fault(Ended(
        assignment.group, before->assignment().epoch,
        absl::StrCat("group ", assignment.group, " has moved on to epoch ", assignment.epoch)));
  }
  auto transport = OpenTransport(assignment);
  const absl::Status opened = transport.status();
  std::shared_ptr<Group> group;
  if (opened.ok()) {  // registers memory, so without the lock
    group = closer_.Watch(std::make_unique<Group>(assignment, *std::move(transport), wire_memory_));
  }
  std::lock_guard lock(mutex_);
  Entry& entry = entries_[assignment.group];
  if (!opened.ok()) {
    // The same epoch may be tried again.
    if (entry.epoch == assignment.epoch) entry.epoch = assignment.epoch - 1;
    return opened;
  }
  if (entry.epoch != assignment.epoch) {
    return Stale(assignment.group, entry.epoch, assignment.epoch);
  }
  entry.group = group;
  return group->handles();
}

absl::Status GroupTable::Connect(const std::string& group, uint64_t epoch,
                                 const std::vector<RankHandles>& handles) {
  ANNULUS_ASSIGN_OR_RETURN(std::shared_ptr<Group> found, Find(group, epoch));
  return found->Connect(handles, NowNs() + SecondsToNs(options_.connect_timeout_seconds));
}

void GroupTable::Fault(const FaultVerdict& verdict) {
  std::shared_ptr<Group> group;
  {
    std::lock_guard lock(mutex_);
    const auto it = entries_.find(verdict.group);
    if (it == entries_.end() || it->second.epoch != verdict.epoch) return;
    group = it->second.group;
  }
  if (group != nullptr) group->Fault(verdict);
}

void GroupTable::FaultAll(const std::string& reason) {
  std::vector<std::shared_ptr<Group>> groups;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [name, entry] : entries_) {
      if (entry.group != nullptr) groups.push_back(entry.group);
    }
  }
  for (const auto& group : groups) {
    const GroupAssignment& known = group->assignment();
    FaultVerdict verdict =
        Ended(known.group, known.epoch, absl::StrCat("this worker ended all its groups: ", reason));
    verdict.reason = reason;
    group->Fault(verdict);
  }
}

void GroupTable::Release(const std::string& group, uint64_t epoch) {
  std::shared_ptr<Group> released;
  {
    std::lock_guard lock(mutex_);
    const auto it = entries_.find(group);
    if (it == entries_.end() || it->second.epoch > epoch) return;
    it->second.epoch = epoch;
    released = std::move(it->second.group);
    it->second.group = nullptr;
  }
  if (released != nullptr) {
    released->Fault(
        Ended(group, released->assignment().epoch, absl::StrCat("group ", group, " was released")));
  }
}

absl::StatusOr<std::shared_ptr<Group>> GroupTable::Find(const std::string& group,
                                                        uint64_t epoch) const {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(group);
  if (it == entries_.end()) {
    return NotReady(group, epoch, "this worker is not a member of the group");
  }
  const Entry& entry = it->second;
  if (epoch < entry.epoch || (epoch == entry.epoch && entry.group == nullptr)) {
    return Stale(group, entry.epoch, epoch);
  }
  if (epoch > entry.epoch)
    return NotReady(group, epoch, "this worker does not know that epoch yet");
  return entry.group;
}

}  // namespace annulus::worker
