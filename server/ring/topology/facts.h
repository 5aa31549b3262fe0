// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/ring/names.h"

// What a worker knows of the machine it is on, and what two of them are to each other. Everything
// that is decided on a topology is a function of these.
namespace annulus::ring {

enum class DeviceKind { kCpu, kCuda };

// How one GPU reaches the memory of another of its host: over NVLink, over PCIe by peer access, or
// not at all but through the host.
enum class GpuLink { kNone, kPcie, kNvlink };

// How far a network adapter is from the worker's device: behind the same PCIe switch or root port,
// at the same NUMA node, or across the link between processors.
enum class NicDistance { kSwitch, kNuma, kAcross };

absl::string_view Name(DeviceKind value);   // cpu, cuda
absl::string_view Name(GpuLink value);      // none, pcie, nvlink
absl::string_view Name(NicDistance value);  // switch, numa, across

template <>
std::optional<DeviceKind> FromName<DeviceKind>(absl::string_view name);
template <>
std::optional<GpuLink> FromName<GpuLink>(absl::string_view name);
template <>
std::optional<NicDistance> FromName<NicDistance>(absl::string_view name);
template <>
std::string AllNames<DeviceKind>();
template <>
std::string AllNames<GpuLink>();
template <>
std::string AllNames<NicDistance>();

struct GpuPeer {
  std::string bus_id;
  GpuLink link = GpuLink::kNone;
  friend bool operator==(const GpuPeer&, const GpuPeer&) = default;
};

struct Nic {
  std::string name;
  NicDistance distance = NicDistance::kAcross;
  int64_t megabits_per_second = 0;  // 0: not known
  friend bool operator==(const Nic&, const Nic&) = default;
};

struct LoadedTransport {
  std::string name;     // of the plugin
  std::string version;  // of the library under it, where all members need the same; "": not known
  // Memory that it moves: the host's, a device's. Neither: not told.
  bool host_memory = false;
  bool device_memory = false;
  friend bool operator==(const LoadedTransport&, const LoadedTransport&) = default;
};

struct WorkerFacts {
  std::string worker;   // its name; unique
  std::string node;     // ranks of a node are contiguous
  std::string host_id;  // equal for workers that can share memory; "": not known
  DeviceKind device = DeviceKind::kCpu;
  int device_ordinal = -1;  // -1: not known, or a CPU
  std::string bus_id;       // of the GPU, "0000:3b:00.0"; "": not known, or a CPU
  std::string gpu_uuid;
  int numa_node = -1;  // of the device; -1: not known
  // GPUs of the host whose relation to this one is known, and whether these are all: one that is
  // not among them cannot be reached then, and is else not known.
  bool peers_known = false;
  std::vector<GpuPeer> peers;
  // The GPU is split into parts (MIG): others with its bus id may not reach this worker's memory.
  bool partitioned = false;
  // Equal for workers that may open each other's GPU memory: user, network and PID namespace. "":
  // not known.
  std::string ipc_scope;
  std::vector<Nic> nics;
  std::vector<LoadedTransport> transports;  // empty: not told
  friend bool operator==(const WorkerFacts&, const WorkerFacts&) = default;
};

// What lies between the devices of two workers, from the best to the worst.
enum class PairLink { kHostMemory, kSameGpu, kNvlink, kPcie, kUnknown, kNone, kOtherHost };

// Symmetric. Where both sides know and differ, the worse counts. Two workers without a host id are
// taken to share a host if they share a node.
PairLink LinkBetween(const WorkerFacts& a, const WorkerFacts& b);
absl::string_view Words(PairLink link);  // "NVLink", "PCIe peer access", ...

// The number of each member's node, numbered in the order in which they first come.
std::vector<int> NodeNumbers(const std::vector<WorkerFacts>& members);

// What facts may hold at most; parsers refuse more.
inline constexpr size_t kMaxFactBytes = 128;  // of each text
inline constexpr size_t kMaxGpuPeers = 64;
inline constexpr size_t kMaxNics = 64;
inline constexpr size_t kMaxTransports = 16;

}  // namespace annulus::ring
