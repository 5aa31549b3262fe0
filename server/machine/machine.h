// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/ring/topology/facts.h"

// What lies around a device in the machine. The only place that knows hwloc.
namespace annulus::machine {

struct MachineOptions {
  std::string bus_id;    // of the device, "0000:3b:00.0"; "": none, such as a CPU worker's
  std::string xml_path;  // a topology that hwloc exported (lstopo --of xml); "": this machine
  std::string sys_folder = "/sys";  // where the speed of adapters stands
};

struct Surroundings {
  int numa_node = -1;  // of the device; -1: not known
  // Adapters on the PCI bus, by name, at most kMaxNics. One with an RDMA device bears its name
  // ("mlx5_0"), another that of its network interface. Without a device, the distance is kNuma on
  // a machine with one NUMA node and kAcross on others.
  std::vector<ring::Nic> nics;
  // Bus ids of NVIDIA's GPUs on the PCI bus, those included that a container keeps from this
  // process.
  std::vector<std::string> gpus;
};

// FAILED_PRECONDITION: hwloc cannot read the topology. A device that is not in it leaves the
// distances at kAcross and its NUMA node unknown. Thread safe; takes some milliseconds.
absl::StatusOr<Surroundings> ReadSurroundings(const MachineOptions& options);

}  // namespace annulus::machine
