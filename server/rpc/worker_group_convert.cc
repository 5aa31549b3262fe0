// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/worker_group_convert.h"

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/rpc/worker_names.h"

namespace annulus::rpc {
namespace {

constexpr int kMaxRanks = 4096;

absl::StatusOr<annulusLinkModel> LinkFromProto(absl::string_view field, const v1::LinkModel& link) {
  for (const double value : {link.bytes_per_second(), link.latency_seconds()}) {
    if (!std::isfinite(value) || value < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("options.", field, ": expected finite numbers >= 0, got ", value));
    }
  }
  return annulusLinkModel{link.bytes_per_second(), link.latency_seconds()};
}

absl::Status CheckRanks(const v1::PrepareGroup& prepare) {
  const int size = prepare.options().size();
  if (size < 1 || size > kMaxRanks) {
    return absl::InvalidArgumentError(
        absl::StrCat("options.size: expected 1..", kMaxRanks, ", got ", size));
  }
  if (prepare.rank() < 0 || prepare.rank() >= size) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank: expected 0..", size - 1, ", got ", prepare.rank()));
  }
  const int window = prepare.options().window_size();
  if (window < 0 || window > size || (window != 0 && size % window != 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("options.window_size: expected a divisor of ", size, " or 0, got ", window));
  }
  if (prepare.options().ranks_per_node() < 0) {
    return absl::InvalidArgumentError(absl::StrCat("options.ranks_per_node: expected >= 0, got ",
                                                   prepare.options().ranks_per_node()));
  }
  if (prepare.members_size() != size) {
    return absl::InvalidArgumentError(
        absl::StrCat("members: expected ", size, ", one per rank, got ", prepare.members_size()));
  }
  for (int rank = 0; rank < size; ++rank) {
    if (prepare.members(rank).rank() != rank) {
      return absl::InvalidArgumentError(absl::StrCat("members: expected rank ", rank, " at index ",
                                                     rank, ", got rank ",
                                                     prepare.members(rank).rank()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<annulusTransportHandle> HandleFromBytes(const char* field, int rank,
                                                       const std::string& bytes) {
  annulusTransportHandle handle{};
  if (bytes.size() > sizeof(handle.bytes)) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": expected at most ",
                                                   sizeof(handle.bytes), " bytes each, got ",
                                                   bytes.size(), " for rank ", rank));
  }
  std::memcpy(handle.bytes, bytes.data(), bytes.size());
  return handle;
}

}  // namespace

absl::StatusOr<worker::GroupAssignment> AssignmentFromProto(const v1::PrepareGroup& prepare) {
  ANNULUS_RETURN_IF_ERROR(CheckResourceName("group", prepare.group()));
  ANNULUS_RETURN_IF_ERROR(CheckRanks(prepare));
  const v1::GroupOptions& options = prepare.options();
  worker::GroupAssignment out;
  ANNULUS_ASSIGN_OR_RETURN(out.inner_link, LinkFromProto("inner_link", options.inner_link()));
  ANNULUS_ASSIGN_OR_RETURN(out.outer_link, LinkFromProto("outer_link", options.outer_link()));
  out.group = prepare.group();
  out.epoch = prepare.epoch();
  out.rank = prepare.rank();
  out.size = options.size();
  out.window_size = options.window_size() == 0 ? options.size() : options.window_size();
  out.ranks_per_node = options.ranks_per_node();
  out.transfers_off = options.transfers_off();
  out.inner_transport = prepare.topology().inner().transport();
  out.outer_transport = prepare.topology().outer().transport();
  for (const v1::GroupMember& member : prepare.members()) {
    out.workers.push_back(member.worker());
    out.nodes.push_back(member.node());
    out.host_ids.push_back(member.host_id());
  }
  return out;
}

absl::StatusOr<std::vector<worker::RankHandles>> HandlesFromProto(const v1::ConnectGroup& connect) {
  const int ranks = connect.transport_handles_size();
  if (ranks > kMaxRanks) {
    return absl::InvalidArgumentError(
        absl::StrCat("transport_handles: expected at most ", kMaxRanks, ", got ", ranks));
  }
  const int outer_ranks = connect.outer_transport_handles_size();
  if (outer_ranks != 0 && outer_ranks != ranks) {
    return absl::InvalidArgumentError(absl::StrCat("outer_transport_handles: expected none or ",
                                                   ranks, ", one per rank, got ", outer_ranks));
  }
  std::vector<worker::RankHandles> handles(static_cast<size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) {
    worker::RankHandles& of_rank = handles[static_cast<size_t>(rank)];
    ANNULUS_ASSIGN_OR_RETURN(
        of_rank.inner, HandleFromBytes("transport_handles", rank, connect.transport_handles(rank)));
    if (outer_ranks == 0 || connect.outer_transport_handles(rank).empty()) continue;
    ANNULUS_ASSIGN_OR_RETURN(of_rank.outer, HandleFromBytes("outer_transport_handles", rank,
                                                            connect.outer_transport_handles(rank)));
  }
  return handles;
}

std::string HandleToBytes(const annulusTransportHandle& handle) {
  return std::string(reinterpret_cast<const char*>(handle.bytes), sizeof(handle.bytes));
}

worker::FaultVerdict VerdictFromProto(const v1::GroupFault& fault) {
  return worker::FaultVerdict{
      fault.group(),  fault.epoch(),   fault.culprit_rank(), fault.culprit_worker(),
      fault.reason(), fault.message(), fault.step()};
}

v1::FaultReport ObservationToProto(const worker::FaultObservation& observation) {
  v1::FaultReport out;
  out.set_group(observation.group);
  out.set_epoch(observation.epoch);
  out.set_suspect_rank(observation.suspect_rank);
  out.set_step(observation.step);
  out.set_request_id(observation.request_id);
  out.set_message(observation.message);
  return out;
}

v1::RequestProgress ProgressToProto(const worker::Progress& progress) {
  v1::RequestProgress out;
  v1::Fence* fence = out.mutable_fence();
  fence->set_term(progress.fence.term);
  fence->set_group(progress.fence.group);
  fence->set_epoch(progress.fence.epoch);
  fence->set_incarnation(progress.fence.incarnation);
  fence->set_request_id(progress.fence.request_id);
  fence->set_step(progress.step);
  fence->set_hop(progress.hop);
  out.set_steps(progress.steps);
  out.set_waiting_for_rank(progress.waiting_for_rank);
  out.set_advances(progress.advances);
  return out;
}

}  // namespace annulus::rpc
