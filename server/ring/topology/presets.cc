// SPDX-License-Identifier: Apache-2.0
#include "server/ring/topology/presets.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace annulus::ring {
namespace {

constexpr char kNcclVersion[] = "2.28.9";
constexpr int64_t kFastMegabits = 400'000;

// Bus numbers of an HGX H100 board, two processors with four GPUs each.
constexpr int kBuses[] = {0x1b, 0x43, 0x52, 0x61, 0x9d, 0xc3, 0xd1, 0xdf};

std::string BusId(int bus) { return absl::StrFormat("0000:%02x:00.0", bus); }

// A machine: the same GPUs and adapters on every node.
struct Machine {
  int nodes = 1;
  int gpus = 8;
  int workers_per_gpu = 1;
  int nics = 0;
  bool nvswitch = false;
  bool peer_access_across = false;  // over PCIe, also between the two processors
};

int NumaOf(const Machine& machine, int gpu) { return gpu / ((machine.gpus + 1) / 2); }

std::vector<GpuPeer> Peers(const Machine& machine, int gpu) {
  std::vector<GpuPeer> peers;
  for (int other = 0; other < machine.gpus; ++other) {
    if (other == gpu) continue;
    const bool near = NumaOf(machine, other) == NumaOf(machine, gpu);
    const GpuLink link = machine.nvswitch                     ? GpuLink::kNvlink
                         : near || machine.peer_access_across ? GpuLink::kPcie
                                                              : GpuLink::kNone;
    peers.push_back({BusId(kBuses[other]), link});
  }
  return peers;
}

// Adapter k sits beside the GPUs that share it.
std::vector<Nic> Nics(const Machine& machine, int gpu) {
  std::vector<Nic> nics;
  for (int nic = 0; nic < machine.nics; ++nic) {
    const int beside = nic * machine.gpus / machine.nics;
    const bool same_switch = gpu * machine.nics / machine.gpus == nic;
    const bool near = NumaOf(machine, beside) == NumaOf(machine, gpu);
    nics.push_back({absl::StrCat("mlx5_", nic),
                    same_switch ? NicDistance::kSwitch
                    : near      ? NicDistance::kNuma
                                : NicDistance::kAcross,
                    kFastMegabits});
  }
  return nics;
}

std::vector<WorkerFacts> Describe(const Machine& machine) {
  std::vector<WorkerFacts> workers;
  for (int node = 0; node < machine.nodes; ++node) {
    for (int i = 0; i < machine.gpus * machine.workers_per_gpu; ++i) {
      const int gpu = i / machine.workers_per_gpu;
      WorkerFacts& facts = workers.emplace_back();
      facts.node = absl::StrCat("node-", node);
      facts.host_id = facts.node;
      facts.worker = absl::StrCat("n", node, "-", i);
      facts.device = DeviceKind::kCuda;
      facts.device_ordinal = gpu;
      facts.bus_id = BusId(kBuses[gpu]);
      facts.numa_node = NumaOf(machine, gpu);
      facts.peers_known = true;
      facts.peers = Peers(machine, gpu);
      facts.nics = Nics(machine, gpu);
      facts.transports = {{.name = "cuipc", .host_memory = true, .device_memory = true},
                          {.name = "host", .host_memory = true},
                          {.name = "nccl", .version = kNcclVersion, .device_memory = true}};
    }
  }
  return workers;
}

std::vector<WorkerFacts> CpuWorkers(int count) {
  std::vector<WorkerFacts> workers;
  workers.reserve(count);
  for (int i = 0; i < count; ++i) {
    workers.push_back({.worker = absl::StrCat("cpu-", i),
                       .node = "node-0",
                       .host_id = "node-0",
                       .transports = {{.name = "host", .host_memory = true}}});
  }
  return workers;
}

}  // namespace

const std::vector<TopologyPreset>& TopologyPresets() {
  static const std::vector<TopologyPreset> presets = {
      {"dgx-h100x4-nics8", "4 nodes, 8 GPUs each behind NVSwitch, 8 adapters a node"},
      {"dgx-h100x4-nics4", "4 nodes, 8 GPUs each behind NVSwitch, 4 adapters a node"},
      {"pcie-8", "8 GPUs on PCIe, 4 at each of two processors, no peer access between those"},
      {"two-gpus", "two GPUs on PCIe with peer access"},
      {"one-gpu", "one GPU with four workers on it"},
      {"cpu-4", "four CPU workers on one machine"},
  };
  return presets;
}

absl::StatusOr<std::vector<WorkerFacts>> PresetFacts(absl::string_view name) {
  if (name == "dgx-h100x4-nics8") return Describe({.nodes = 4, .nics = 8, .nvswitch = true});
  if (name == "dgx-h100x4-nics4") return Describe({.nodes = 4, .nics = 4, .nvswitch = true});
  if (name == "pcie-8") return Describe({.nics = 2});
  if (name == "two-gpus") return Describe({.gpus = 2, .nics = 1, .peer_access_across = true});
  if (name == "one-gpu") return Describe({.gpus = 1, .workers_per_gpu = 4, .nics = 1});
  if (name == "cpu-4") return CpuWorkers(4);
  return absl::InvalidArgumentError(absl::StrCat(
      "preset: expected one of ",
      absl::StrJoin(TopologyPresets(), ", ",
                    [](std::string* out, const TopologyPreset& preset) { *out += preset.name; }),
      ", got '", name.substr(0, 64), "'"));
}

}  // namespace annulus::ring
