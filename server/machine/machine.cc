// SPDX-License-Identifier: Apache-2.0
#include "server/machine/machine.h"

#include <hwloc.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace annulus::machine {
namespace {

constexpr unsigned kNvidia = 0x10de;
constexpr unsigned kDisplayClass = 0x03;  // of the two bytes of a PCI class, the higher

struct Destroy {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
};
using TopologyPtr = std::unique_ptr<hwloc_topology, Destroy>;

absl::StatusOr<TopologyPtr> Load(const std::string& xml_path) {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return absl::FailedPreconditionError("hwloc: out of memory");
  TopologyPtr topology(raw);
  // Bridges too: a switch that a GPU and an adapter share is one.
  hwloc_topology_set_io_types_filter(raw, HWLOC_TYPE_FILTER_KEEP_ALL);
  if ((!xml_path.empty() && hwloc_topology_set_xml(raw, xml_path.c_str()) != 0) ||
      hwloc_topology_load(raw) != 0) {
    return absl::FailedPreconditionError(absl::StrCat("hwloc cannot read the topology of ",
                                                      xml_path.empty() ? "this machine" : xml_path,
                                                      ": ", std::strerror(errno)));
  }
  return topology;
}

// The NUMA node that `object` is at, or -1: at several, or none.
int NumaOf(hwloc_topology_t topology, hwloc_obj_t object) {
  const hwloc_obj_t place = hwloc_get_non_io_ancestor_obj(topology, object);
  if (place == nullptr || place->nodeset == nullptr) return -1;
  return hwloc_bitmap_weight(place->nodeset) == 1 ? hwloc_bitmap_first(place->nodeset) : -1;
}

bool IsPciBridge(hwloc_obj_t object) {
  return object->type == HWLOC_OBJ_BRIDGE &&
         object->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_PCI;
}

// Whether both hang below one bridge of the PCI bus.
bool ShareSwitch(hwloc_obj_t a, hwloc_obj_t b) {
  for (hwloc_obj_t above = a->parent; above != nullptr; above = above->parent) {
    if (!IsPciBridge(above)) continue;
    for (hwloc_obj_t other = b->parent; other != nullptr; other = other->parent) {
      if (other == above) return true;
    }
  }
  return false;
}

// Where `device` is null, there is none.
ring::NicDistance DistanceOf(hwloc_topology_t topology, hwloc_obj_t device, hwloc_obj_t nic) {
  if (device != nullptr && ShareSwitch(device, nic)) return ring::NicDistance::kSwitch;
  const int numa = NumaOf(topology, device != nullptr ? device : hwloc_get_root_obj(topology));
  const bool near = numa >= 0 && numa == NumaOf(topology, nic);
  return near ? ring::NicDistance::kNuma : ring::NicDistance::kAcross;
}

// The first number of a file of one line, or 0.
int64_t NumberIn(const std::string& path) {
  std::ifstream file(path);
  double number = 0;
  return file >> number && number > 0 && number < 1e9 ? static_cast<int64_t>(number) : 0;
}

int64_t SpeedOf(const std::string& sys_folder, const std::string& name, bool rdma) {
  if (!rdma) return NumberIn(absl::StrCat(sys_folder, "/class/net/", name, "/speed"));
  // "400 Gb/sec (4X NDR)"
  return 1000 * NumberIn(absl::StrCat(sys_folder, "/class/infiniband/", name, "/ports/1/rate"));
}

// The operating system's name of the adapter at `pci`, an RDMA device's before an interface's; ""
// if it is none.
std::string NicName(hwloc_obj_t pci, bool* rdma) {
  std::string name;
  *rdma = false;
  for (hwloc_obj_t child = pci->io_first_child; child != nullptr; child = child->next_sibling) {
    if (child->type != HWLOC_OBJ_OS_DEVICE || child->name == nullptr) continue;
    const bool is_rdma = child->attr->osdev.type == HWLOC_OBJ_OSDEV_OPENFABRICS;
    if (!is_rdma && child->attr->osdev.type != HWLOC_OBJ_OSDEV_NETWORK) continue;
    if (!name.empty() && (*rdma || !is_rdma)) continue;
    name = child->name;
    *rdma = is_rdma;
  }
  return name;
}

bool IsNvidiaGpu(hwloc_obj_t pci) {
  const auto& attr = pci->attr->pcidev;
  return attr.vendor_id == kNvidia && attr.class_id >> 8 == kDisplayClass;
}

std::string BusIdOf(hwloc_obj_t pci) {
  const auto& attr = pci->attr->pcidev;
  return absl::StrFormat("%04x:%02x:%02x.%x", attr.domain, attr.bus, attr.dev, attr.func);
}

}  // namespace

absl::StatusOr<Surroundings> ReadSurroundings(const MachineOptions& options) {
  absl::StatusOr<TopologyPtr> loaded = Load(options.xml_path);
  if (!loaded.ok()) return loaded.status();
  const hwloc_topology_t topology = loaded->get();
  hwloc_obj_t device = nullptr;
  if (!options.bus_id.empty()) {
    device = hwloc_get_pcidev_by_busidstring(topology, options.bus_id.c_str());
  }
  const bool lost = !options.bus_id.empty() && device == nullptr;
  Surroundings out;
  if (device != nullptr) out.numa_node = NumaOf(topology, device);
  std::map<std::string, ring::Nic> nics;
  for (hwloc_obj_t pci = hwloc_get_next_pcidev(topology, nullptr); pci != nullptr;
       pci = hwloc_get_next_pcidev(topology, pci)) {
    if (IsNvidiaGpu(pci)) out.gpus.push_back(BusIdOf(pci));
    bool rdma = false;
    const std::string name = NicName(pci, &rdma);
    if (name.empty() || name.size() > ring::kMaxFactBytes) continue;
    nics[name] = {name, lost ? ring::NicDistance::kAcross : DistanceOf(topology, device, pci),
                  SpeedOf(options.sys_folder, name, rdma)};
  }
  for (auto& [name, nic] : nics) {
    if (out.nics.size() < ring::kMaxNics) out.nics.push_back(std::move(nic));
  }
  return out;
}

}  // namespace annulus::machine
