// SPDX-License-Identifier: Apache-2.0
#include "client/cli/device_memory/client_memory.h"

#include <unistd.h>

#include <map>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/src/coordinator_link.h"
#include "client/src/region_lease.h"
#include "server/base/status_macros.h"

namespace annulus::cli {
namespace {

constexpr int kOrdinalsMax = 64;  // more GPUs than a host has

// The workers of the group in rank order, as they introduced themselves.
absl::StatusOr<std::vector<v1::WorkerHello>> MembersOf(const std::string& coordinator,
                                                       const client::GroupInfo& group,
                                                       absl::Time deadline) {
  ANNULUS_ASSIGN_OR_RETURN(const auto link,
                           client::CoordinatorLink::Connect(coordinator, deadline));
  ANNULUS_ASSIGN_OR_RETURN(const v1::ListWorkersResponse listed, link->ListWorkers(deadline));
  std::vector<v1::WorkerHello> members;
  for (const client::GroupMember& member : group.members) {
    for (const v1::WorkerInfo& worker : listed.workers()) {
      const bool live = worker.state() == v1::WorkerInfo::STATE_LIVE;
      if (live && worker.hello().name() == member.worker) members.push_back(worker.hello());
    }
  }
  if (members.size() == group.members.size()) return members;
  return absl::UnavailableError("a worker of the group is not live any more");
}

// Which plugin opens the devices of the workers: what the flags name, else what they say of
// themselves.
std::string PluginFor(const RunFlags& flags, const std::vector<v1::WorkerHello>& members) {
  if (!flags.device.empty() || !flags.compute_plugin.empty()) return ComputePluginOf(flags);
  for (const v1::WorkerHello& member : members) {
    if (member.facts().device() != v1::WorkerFacts::DEVICE_KIND_CUDA) return "cpu";
  }
  return "cuda";
}

// Whether the socket that takes regions is one of this host (and network namespace).
bool Reachable(const std::string& path) {
  const absl::StatusOr<int> fd = client::ConnectRegionSocket(path);
  if (fd.ok()) close(*fd);
  return fd.ok();
}

// Opens each device that a member computes on. The error is the reason why that cannot be.
absl::Status OpenDevices(const std::string& plugin, const std::vector<v1::WorkerHello>& members,
                         ClientMemory* out) {
  std::map<std::string, ComputeDevice*> wanted;
  for (const v1::WorkerHello& member : members) {
    const std::string bus_id = absl::AsciiStrToLower(member.facts().bus_id());
    if (bus_id.empty() || !Reachable(member.region_socket())) {
      return absl::FailedPreconditionError(absl::StrCat(
          "worker ", member.name(),
          bus_id.empty() ? " names no device" : " takes no memory from this host's processes"));
    }
    wanted[bus_id] = nullptr;
    out->workers.push_back(member.name());
  }
  ANNULUS_ASSIGN_OR_RETURN(const annulusComputeV1* api, LoadComputePlugin(plugin));
  size_t missing = wanted.size();
  for (int ordinal = 0; ordinal < kOrdinalsMax && missing > 0; ++ordinal) {
    auto device = ComputeDevice::Open(api, 1, ordinal);
    if (!device.ok() && ordinal == 0) return device.status();
    if (!device.ok()) break;
    if (!(*device)->exports()) {
      return absl::FailedPreconditionError(
          absl::StrCat("memory of ", (*device)->description(), " cannot be exported"));
    }
    const auto found = wanted.find(absl::AsciiStrToLower((*device)->bus_id()));
    if (found == wanted.end() || found->second != nullptr) continue;
    found->second = device->get();
    out->devices.push_back(*std::move(device));
    --missing;
  }
  for (const v1::WorkerHello& member : members) {
    out->of_rank.push_back(wanted[absl::AsciiStrToLower(member.facts().bus_id())]);
    if (out->of_rank.back() != nullptr) continue;
    return absl::FailedPreconditionError(absl::StrCat("device ", member.facts().bus_id(), " of ",
                                                      member.name(),
                                                      " is none that this process sees"));
  }
  return absl::OkStatus();
}

int DevicesOf(const std::vector<v1::WorkerHello>& members) {
  std::set<std::pair<std::string, std::string>> devices;
  for (const v1::WorkerHello& member : members) {
    devices.emplace(member.host_id(), member.facts().bus_id());
  }
  return static_cast<int>(devices.size());
}

}  // namespace

MemoryUsed ClientMemory::Used() const {
  MemoryUsed used{.devices = "", .reason = reason};
  for (const auto& device : devices) {
    absl::StrAppend(&used.devices, used.devices.empty() ? "" : "; ", device->description(), " at ",
                    device->bus_id());
  }
  return used;
}

absl::StatusOr<ClientMemory> ChooseClientMemory(const RunFlags& flags,
                                                const std::string& coordinator,
                                                const client::GroupInfo& group,
                                                absl::Time deadline) {
  ANNULUS_ASSIGN_OR_RETURN(const auto members, MembersOf(coordinator, group, deadline));
  ClientMemory host;
  host.worker_devices = DevicesOf(members);
  if (flags.client_memory == "host") {
    host.reason = "--client-memory host";
    return host;
  }
  if (flags.data_path != "auto") {  // CheckRunFlags has refused it beside a demand
    host.reason = absl::StrCat("--data-path ", flags.data_path);
    return host;
  }
  const bool demanded = flags.client_memory == "device";
  const std::string plugin = PluginFor(flags, members);
  if (plugin == "cpu" && !demanded) return host;
  ClientMemory memory;
  memory.worker_devices = host.worker_devices;
  const absl::Status opened = OpenDevices(plugin, members, &memory);
  if (opened.ok()) return memory;
  if (demanded) {
    return absl::FailedPreconditionError(
        absl::StrCat("--client-memory device: ", std::string(opened.message())));
  }
  host.reason = std::string(opened.message());
  return host;
}

}  // namespace annulus::cli
