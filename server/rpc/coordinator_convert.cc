// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/coordinator_convert.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/base/status_macros.h"
#include "server/coordinator/group_options.h"
#include "server/rpc/facts_convert.h"

namespace annulus::rpc {
namespace {

constexpr size_t kTextBytesMax = 255;
constexpr size_t kSocketPathBytesMax = 107;  // of sockaddr_un
constexpr size_t kRequestIdBytesMax = 64;
constexpr size_t kHandleBytesMax = 128;
constexpr size_t kMessageBytesMax = 1000;
constexpr int kProgressMax = 64;

absl::Status CheckText(absl::string_view field, const std::string& text, size_t bytes_max,
                       bool required) {
  const bool printable =
      std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
  if (printable && text.size() <= bytes_max && (!required || !text.empty())) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(field, ": expected ", required ? 1 : 0, " to ",
                                                 bytes_max, " printable ASCII characters, got '",
                                                 absl::CHexEscape(text.substr(0, bytes_max)), "' (",
                                                 text.size(), " bytes)"));
}

std::string Cut(const std::string& text, size_t bytes_max) {
  std::string out = text.substr(0, bytes_max);
  std::replace_if(
      out.begin(), out.end(), [](char c) { return c < 0x20 || c > 0x7e; }, ' ');
  return out;
}

coordinator::WorkerHeartbeat HeartbeatFromProto(coordinator::SessionId session,
                                                const v1::WorkerHeartbeat& heartbeat) {
  coordinator::WorkerHeartbeat event{.session = session, .used_bytes = heartbeat.used_bytes()};
  for (const v1::RequestProgress& progress : heartbeat.progress()) {
    if (event.progress.size() == kProgressMax) break;
    const v1::Fence& fence = progress.fence();
    if (!coordinator::CheckName("group", fence.group()).ok()) continue;
    if (!CheckText("request_id", fence.request_id(), kRequestIdBytesMax, false).ok()) continue;
    event.progress.push_back({.group = fence.group(),
                              .epoch = fence.epoch(),
                              .request_id = fence.request_id(),
                              .step = fence.step(),
                              .steps = progress.steps(),
                              .hop = fence.hop(),
                              .waiting_for_rank = progress.waiting_for_rank(),
                              .advances = progress.advances()});
  }
  return event;
}

absl::StatusOr<coordinator::Event> PreparedFromProto(coordinator::SessionId session,
                                                     const v1::GroupPrepared& prepared) {
  coordinator::GroupPrepared event{.session = session,
                                   .group = prepared.group(),
                                   .epoch = prepared.epoch(),
                                   .transport_handle = prepared.transport_handle(),
                                   .error = Cut(prepared.error(), kMessageBytesMax),
                                   .outer_transport_handle = prepared.outer_transport_handle()};
  for (std::string* handle : {&event.transport_handle, &event.outer_transport_handle}) {
    if (handle->size() <= kHandleBytesMax) continue;
    event.error = absl::StrCat("transport handle: expected at most ", kHandleBytesMax,
                               " bytes, got ", handle->size());
    handle->clear();
  }
  return event;
}

v1::LinkModel LinkToProto(const coordinator::LinkModel& link) {
  v1::LinkModel out;
  out.set_bytes_per_second(link.bytes_per_second);
  out.set_latency_seconds(link.latency_seconds);
  return out;
}

coordinator::LinkModel LinkFromProto(const v1::LinkModel& link) {
  return {.bytes_per_second = link.bytes_per_second(), .latency_seconds = link.latency_seconds()};
}

void OptionsToProto(const coordinator::GroupOptions& options, v1::GroupOptions* out) {
  out->set_size(options.size);
  out->set_window_size(options.window_size);
  out->set_ranks_per_node(options.ranks_per_node);
  *out->mutable_inner_link() = LinkToProto(options.inner_link);
  *out->mutable_outer_link() = LinkToProto(options.outer_link);
  out->set_transfers_off(options.transfers_off);
  for (const std::string& member : options.members) out->add_members(member);
  out->set_inner_transport(options.inner_transport);
  out->set_outer_transport(options.outer_transport);
}

void ChoiceToProto(const ring::TransportChoice& choice, v1::GroupTopology::Choice* out) {
  out->set_transport(choice.name);
  out->set_reason(choice.reason);
}

void TopologyToProto(const ring::Topology& topology, v1::GroupTopology* out) {
  ChoiceToProto(topology.inner, out->mutable_inner());
  ChoiceToProto(topology.outer, out->mutable_outer());
  out->set_window_reason(topology.window.reason);
}

void MemberToProto(int rank, const coordinator::WorkerIdentity& identity, v1::GroupMember* out) {
  out->set_rank(rank);
  out->set_worker(identity.name);
  out->set_incarnation(identity.incarnation);
  out->set_address(identity.address);
  out->set_node(identity.node);
  out->set_host_id(identity.host_id);
  out->set_region_socket(identity.region_socket);
}

void FaultToProto(const coordinator::Verdict& verdict, v1::GroupFault* out) {
  out->set_group(verdict.group);
  out->set_epoch(verdict.epoch);
  out->set_culprit_rank(verdict.culprit_rank);
  out->set_culprit_worker(verdict.culprit_worker);
  out->set_reason(coordinator::FaultReasonName(verdict.reason));
  out->set_message(verdict.message);
  out->set_step(verdict.step);
}

// One overload per action that goes to a worker.
struct CommandWriter {
  v1::WorkerCommand* out;
  bool operator()(const coordinator::SendWelcome& action) const {
    v1::Welcome* welcome = out->mutable_welcome();
    welcome->set_term(action.term);
    welcome->set_heartbeat_interval_ms(static_cast<int32_t>(action.heartbeat_ms));
    welcome->set_lease_ms(static_cast<int32_t>(action.lease_ms));
    return true;
  }
  bool operator()(const coordinator::SendPrepare& action) const {
    v1::PrepareGroup* prepare = out->mutable_prepare();
    prepare->set_group(action.group);
    prepare->set_epoch(action.epoch);
    prepare->set_rank(action.rank);
    OptionsToProto(action.options, prepare->mutable_options());
    for (size_t rank = 0; rank < action.roster->size(); ++rank) {
      MemberToProto(static_cast<int>(rank), (*action.roster)[rank], prepare->add_members());
    }
    TopologyToProto(*action.topology, prepare->mutable_topology());
    return true;
  }
  bool operator()(const coordinator::SendConnect& action) const {
    v1::ConnectGroup* connect = out->mutable_connect();
    connect->set_group(action.group);
    connect->set_epoch(action.epoch);
    for (const std::string& handle : *action.handles) connect->add_transport_handles(handle);
    if (action.outer_handles == nullptr) return true;
    for (const std::string& handle : *action.outer_handles) {
      connect->add_outer_transport_handles(handle);
    }
    return true;
  }
  bool operator()(const coordinator::SendFault& action) const {
    FaultToProto(action.verdict, out->mutable_fault());
    return true;
  }
  bool operator()(const coordinator::SendRelease& action) const {
    out->mutable_release()->set_group(action.group);
    out->mutable_release()->set_epoch(action.epoch);
    return true;
  }
  template <typename Other>
  bool operator()(const Other&) const {
    return false;
  }
};

}  // namespace

absl::StatusOr<coordinator::WorkerIdentity> IdentityFromProto(const v1::WorkerHello& hello) {
  ANNULUS_RETURN_IF_ERROR(coordinator::CheckName("worker", hello.name()));
  if (hello.incarnation() == 0) {
    return absl::InvalidArgumentError("incarnation: expected a random number, got 0");
  }
  ANNULUS_RETURN_IF_ERROR(CheckText("address", hello.address(), kTextBytesMax, true));
  ANNULUS_RETURN_IF_ERROR(CheckText("node", hello.node(), kTextBytesMax, true));
  ANNULUS_RETURN_IF_ERROR(CheckText("host_id", hello.host_id(), kTextBytesMax, false));
  ANNULUS_RETURN_IF_ERROR(
      CheckText("region_socket", hello.region_socket(), kSocketPathBytesMax, false));
  ANNULUS_RETURN_IF_ERROR(
      CheckText("metrics_address", hello.metrics_address(), kTextBytesMax, false));
  ANNULUS_ASSIGN_OR_RETURN(ring::WorkerFacts facts, FactsFromProto(hello.facts()));
  return coordinator::WorkerIdentity{
      .name = hello.name(),
      .incarnation = hello.incarnation(),
      .address = hello.address(),
      .node = hello.node(),
      .host_id = hello.host_id(),
      .region_socket = hello.region_socket(),
      .metrics_address = hello.metrics_address(),
      .memory_limit_bytes = hello.memory_limit_bytes(),
      .compute_device = Cut(hello.compute_device(), kTextBytesMax),
      .transport = Cut(hello.transport(), kTextBytesMax),
      .version = Cut(hello.version(), kTextBytesMax),
      .facts = std::move(facts),
  };
}

absl::StatusOr<coordinator::Event> EventFromProto(coordinator::SessionId session,
                                                  const v1::WorkerMessage& message) {
  switch (message.message_case()) {
    case v1::WorkerMessage::kHeartbeat:
      return HeartbeatFromProto(session, message.heartbeat());
    case v1::WorkerMessage::kPrepared:
      return PreparedFromProto(session, message.prepared());
    case v1::WorkerMessage::kConnected:
      return coordinator::GroupConnected{
          .session = session,
          .group = message.connected().group(),
          .epoch = message.connected().epoch(),
          .error = Cut(message.connected().error(), kMessageBytesMax)};
    case v1::WorkerMessage::kFault: {
      const v1::FaultReport& fault = message.fault();
      return coordinator::FaultReport{.session = session,
                                      .group = fault.group(),
                                      .epoch = fault.epoch(),
                                      .suspect_rank = fault.suspect_rank(),
                                      .step = fault.step(),
                                      .request_id = Cut(fault.request_id(), kRequestIdBytesMax),
                                      .message = Cut(fault.message(), kMessageBytesMax)};
    }
    case v1::WorkerMessage::kHello:
    case v1::WorkerMessage::MESSAGE_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError(
      "worker message: expected heartbeat, prepared, connected or fault, got another");
}

coordinator::GroupOptions OptionsFromProto(const v1::GroupOptions& options) {
  return {.size = options.size(),
          .window_size = options.window_size(),
          .ranks_per_node = options.ranks_per_node(),
          .inner_link = LinkFromProto(options.inner_link()),
          .outer_link = LinkFromProto(options.outer_link()),
          .transfers_off = options.transfers_off(),
          .members = {options.members().begin(), options.members().end()},
          .inner_transport = options.inner_transport(),
          .outer_transport = options.outer_transport()};
}

bool CommandToProto(const coordinator::Action& action, v1::WorkerCommand* command) {
  command->Clear();
  return std::visit(CommandWriter{command}, action);
}

void GroupToProto(const coordinator::GroupView& view, v1::Group* group) {
  static_assert(static_cast<int>(coordinator::GroupPhase::kWaiting) + 1 ==
                v1::Group::STATE_WAITING);
  static_assert(static_cast<int>(coordinator::GroupPhase::kReady) + 1 == v1::Group::STATE_READY);
  group->set_name(view.name);
  OptionsToProto(view.options, group->mutable_options());
  group->set_state(static_cast<v1::Group::State>(static_cast<int>(view.phase) + 1));
  group->set_term(view.term);
  group->set_epoch(view.epoch);
  if (view.roster != nullptr) {
    for (size_t rank = 0; rank < view.roster->size(); ++rank) {
      MemberToProto(static_cast<int>(rank), (*view.roster)[rank], group->add_members());
    }
  }
  if (view.topology != nullptr) {
    TopologyToProto(*view.topology, group->mutable_topology());
    for (v1::GroupMember& member : *group->mutable_members()) {
      const ring::NicChoice& nic = view.topology->seats[static_cast<size_t>(member.rank())].nic;
      member.set_nic(nic.nic);
      member.set_nic_reason(nic.reason);
    }
  }
  if (view.last_fault) FaultToProto(*view.last_fault, group->mutable_last_fault());
}

void WorkerToProto(const coordinator::Worker& worker, coordinator::TimeMs now,
                   v1::WorkerInfo* info) {
  const coordinator::WorkerIdentity& identity = worker.identity;
  v1::WorkerHello* hello = info->mutable_hello();
  hello->set_name(identity.name);
  hello->set_incarnation(identity.incarnation);
  hello->set_address(identity.address);
  hello->set_node(identity.node);
  hello->set_host_id(identity.host_id);
  hello->set_region_socket(identity.region_socket);
  hello->set_metrics_address(identity.metrics_address);
  hello->set_memory_limit_bytes(identity.memory_limit_bytes);
  hello->set_compute_device(identity.compute_device);
  hello->set_transport(identity.transport);
  hello->set_version(identity.version);
  *hello->mutable_facts() = FactsToProto(identity.facts);
  info->set_state(worker.live ? v1::WorkerInfo::STATE_LIVE : v1::WorkerInfo::STATE_LOST);
  info->set_heartbeat_age_ms(now - worker.last_beat_ms);
  info->set_used_bytes(worker.used_bytes);
  for (const std::string& group : worker.groups) info->add_groups(group);
  for (const coordinator::Progress& progress : worker.progress) {
    v1::RequestProgress* out = info->add_progress();
    v1::Fence* fence = out->mutable_fence();
    fence->set_group(progress.group);
    fence->set_epoch(progress.epoch);
    fence->set_incarnation(identity.incarnation);
    fence->set_request_id(progress.request_id);
    fence->set_step(progress.step);
    fence->set_hop(progress.hop);
    out->set_steps(progress.steps);
    out->set_waiting_for_rank(progress.waiting_for_rank);
    out->set_advances(progress.advances);
  }
}

}  // namespace annulus::rpc
