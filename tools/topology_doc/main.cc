// SPDX-License-Identifier: Apache-2.0
//
// Prints docs/topology.md from the presets:  annulus-topology-doc > docs/topology.md

#include <cstdio>
#include <string>

#include "server/ring/topology/presets.h"
#include "server/ring/topology/topology.h"
#include "server/ring/topology/topology_text.h"

namespace {

constexpr char kIntroduction[] =
    R"(# Topology

<!-- Made by annulus-topology-doc from server/ring/topology. Change that, not this page. -->

Workers say what they know of the machine they are on: node, host, GPU and its bus id, which GPUs of the machine it reaches by peer access and over what, adapters and how far they are, transports they have loaded and the memory that those move. From that alone the coordinator decides who gets which rank, and over what each hop goes, and says why.
`annulus topology --coordinator HOST:PORT` shows it for the live workers of a cluster, `annulus topology --describe FILE` for one that is only described (the format is what `--format=facts` prints), `--describe NAME` for one of the presets below. `annulus groups` shows what was decided for a group.

## Rules

- **Order.** The ranks of a node are contiguous, nodes by name. Inside a node GPUs sit so that the inner ring needs the fewest hops without peer access, then the fewest over PCIe; up to 8 workers of a node every order is considered, up to 64 each rank takes the best neighbour left. Workers of one GPU sit side by side. Among equals, by host, bus id and name. Members that a group names itself sit as named.
- **Window.** The ranks of a node, where all nodes have as many; else the largest number that divides the ranks of every node; else one ring. This is a proposal: a group keeps the window it was asked for, and a group that asks for none is one ring.
- **Outer ring.** It joins equal places of the windows, so that every GPU of a node has one outer peer and all adapters carry an equal part. A flat ring would put the whole traffic of a node on one.
- **Adapters.** The fastest that all GPUs of the node see are dealt so that none serves two more than another, and of all such deals the nearest to the GPUs is taken. The choice is shown; a transport that picks its own adapters, such as NCCL, keeps doing so.
- **Transport inside nodes.** `cuipc` where all are GPUs of one host, every two are one GPU or reach each other's memory, and the processes may open it (one user, network and PID namespace); else `nccl`; else `host`. Parts of one GPU (MIG) are not taken to reach each other.
- **Transport between nodes.** `nccl` where all are GPUs, no two ranks share one (NCCL refuses that), and the versions of the library are the same, as far as they are told; else `host`.
- **Two that go together.** Transports that differ need a memory that both move: `cuipc` the host's and GPUs', `nccl` that of GPUs, `host` the host's. `nccl` beside another one serves whole communicators: each window, and the ranks of equal place in the windows, have to lie on one node or each on another, as where a window is a node's ranks. Where the best two do not go together, the one inside nodes gives way: one ring over several nodes takes `nccl` for all. Beside a transport that moves the host's memory alone `cuipc` would carry nothing but that, so it is taken there only when asked for. Emulated links take one transport for both levels, of the host's memory.
- **A CPU worker** among those that take part means `host`, or the one transport that all have.
- **What is not known is not relied upon**: where nobody says how GPUs reach each other, `cuipc` is not chosen, and the reason says so. A transport that a user forces (`--inner-transport NAME`, `--outer-transport NAME`) is taken, or refused with what is missing, when the group is planned; also one that no hop would take.
- **Which hop takes which.** A hop between two ranks of a node takes the inner transport, any other the outer one, whatever ring it belongs to. If both have one name, one transport serves both.

## Where the links between GPUs come from

A worker with a GPU asks NVML, the management library of NVIDIA's driver (`libnvidia-ml.so.1`, opened at run time, for at most 5 s), of every other GPU of the machine: whether both reading and writing its memory by peer access are possible, and whether over NVLink, directly or through NVSwitches. `CUDA_VISIBLE_DEVICES` hides none from it. A container may: a GPU that is on the PCI bus and that NVML does not show is not known, and neither is any where there is no NVML; the worker's log says so.
`annulus topology --coordinator HOST:PORT --format=facts` shows what each worker found. [ADR 0030](adr/0030-links-between-gpus-come-from-nvml.md) has the reasons.

The choices for GPUs are computed here from described facts, and NVML is asked in tests over a library of its form. Neither has yet been run on a GPU.
)";

}  // namespace

int main() {
  std::fputs(kIntroduction, stdout);
  for (const annulus::ring::TopologyPreset& preset : annulus::ring::TopologyPresets()) {
    const auto facts = annulus::ring::PresetFacts(preset.name);
    if (!facts.ok()) return 1;
    const auto topology = annulus::ring::DecideTopology(*facts, {});
    if (!topology.ok()) return 1;
    std::printf("\n## %s: %s\n\n%s", preset.name, preset.what,
                annulus::ring::TopologyToMarkdown(*topology).c_str());
  }
  return 0;
}
