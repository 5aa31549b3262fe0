// SPDX-License-Identifier: Apache-2.0
#include "server/machine/gpu_links.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <map>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/machine/nvml_library.h"

namespace annulus::machine {
namespace {

using Access = NvmlLibrary::Access;
using Device = NvmlLibrary::Device;

// Machines have far fewer; a count beyond is not believed.
constexpr unsigned kDevicesMax = 1024;

absl::StatusOr<std::map<std::string, Device>> DevicesByBusId(const NvmlLibrary& nvml) {
  ANNULUS_ASSIGN_OR_RETURN(const unsigned count, nvml.CountDevices());
  std::map<std::string, Device> devices;
  for (unsigned index = 0; index < std::min(count, kDevicesMax); ++index) {
    // One that this process may not open is as good as not seen.
    const auto device = nvml.FindDevice(index);
    if (!device.ok()) continue;
    const auto bus_id = nvml.BusId(*device);
    if (bus_id.ok()) devices[*bus_id] = *device;
  }
  return devices;
}

// Nothing where NVML does not tell.
std::optional<ring::GpuLink> LinkTo(const NvmlLibrary& nvml, Device self, Device peer) {
  const auto read = nvml.MayAccess(self, peer, Access::kRead);
  const auto write = nvml.MayAccess(self, peer, Access::kWrite);
  if (!read.ok() || !write.ok()) return std::nullopt;
  if (!*read || !*write) return ring::GpuLink::kNone;
  const auto nvlink = nvml.MayAccess(self, peer, Access::kNvlink);
  return nvlink.ok() && *nvlink ? ring::GpuLink::kNvlink : ring::GpuLink::kPcie;
}

absl::StatusOr<GpuLinks> Read(const std::string& library, const std::string& bus_id) {
  ANNULUS_ASSIGN_OR_RETURN(const std::unique_ptr<NvmlLibrary> nvml, NvmlLibrary::Open(library));
  ANNULUS_ASSIGN_OR_RETURN(const auto devices, DevicesByBusId(*nvml));
  const auto self = devices.find(bus_id);
  if (self == devices.end()) {
    return absl::NotFoundError(absl::StrCat("NVML knows no GPU ", bus_id));
  }
  GpuLinks out;
  out.uuid = nvml->Uuid(self->second).value_or("");
  out.partitioned = nvml->IsPartitioned(self->second);
  for (const auto& [peer_bus_id, peer] : devices) {
    if (peer == self->second || out.peers.size() == ring::kMaxGpuPeers) continue;
    const auto link = out.partitioned ? ring::GpuLink::kNone : LinkTo(*nvml, self->second, peer);
    if (link.has_value()) out.peers.push_back({peer_bus_id, *link});
  }
  return out;
}

}  // namespace

absl::StatusOr<GpuLinks> ReadGpuLinks(const GpuLinksOptions& options) {
  std::promise<absl::StatusOr<GpuLinks>> promise;
  std::future<absl::StatusOr<GpuLinks>> links = promise.get_future();
  std::thread([promise = std::move(promise), library = options.library,
               bus_id = options.bus_id]() mutable {
    promise.set_value(Read(library, bus_id));
  }).detach();
  if (links.wait_for(std::chrono::duration<double>(options.limit_seconds)) ==
      std::future_status::ready) {
    return links.get();
  }
  return absl::DeadlineExceededError(
      absl::StrCat("NVML did not answer within ", options.limit_seconds, " s"));
}

bool NamesAll(const std::vector<ring::GpuPeer>& peers, const std::vector<std::string>& gpus,
              const std::string& self) {
  return std::all_of(gpus.begin(), gpus.end(), [&](const std::string& bus_id) {
    return bus_id == self ||
           std::any_of(peers.begin(), peers.end(),
                       [&](const ring::GpuPeer& peer) { return peer.bus_id == bus_id; });
  });
}

}  // namespace annulus::machine
