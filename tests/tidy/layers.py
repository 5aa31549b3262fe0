#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds the include lines of the tree to the layer table of docs/ARCHITECTURE.md. Prints each offence; exits 1 if there is one."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

# folder prefix -> (prefixes of ours it may include beside its own, outside headers it alone may include)
# The longest matching folder prefix of a file decides.
LAYERS = {
    "server/base/": [],
    "server/ring/": ["server/base/"],
    "kernels/": ["server/base/"],
    "kernels/reference/": ["server/base/", "kernels/"],
    "kernels/cpu/": ["server/base/", "kernels/"],
    "kernels/cuda/": ["server/base/", "kernels/"],
    "server/machine/": ["server/base/", "server/ring/topology/"],
    "server/transport/": ["server/base/"],
    "server/metrics/": ["server/base/"],
    "server/worker/": ["server/base/", "server/ring/", "kernels/compute_plugin.h", "server/transport/transport_plugin.h",
                       "server/transport/transport.h", "server/transport/pacing/", "server/metrics/"],
    "server/coordinator/": ["server/base/", "server/ring/", "server/metrics/"],
    "server/rpc/": ["server/base/", "server/ring/", "server/worker/", "server/coordinator/", "server/metrics/", "annulus/v1/"],
    "server/apps/": ["server/", "kernels/", "annulus/v1/"],
    "client/io/": ["server/base/"],
    "client/trace/": ["server/base/", "client/io/"],
    "client/include/": ["annulus/"],
    "client/src/": ["server/base/", "server/ring/", "client/include/", "annulus/"],
    "client/cli/": ["server/base/", "server/ring/", "client/", "annulus/", "kernels/reference/", "kernels/error_metrics.h",
                    "kernels/numeric.h", "kernels/tensor_view.h", "kernels/compute_plugin.h"],
    "client/examples/": ["annulus/", "kernels/reference/", "kernels/error_metrics.h", "client/"],
    "tools/": ["server/", "client/", "kernels/"],
}
# Outside headers that only these folders may include.
VENDORS = {
    r"(grpcpp|grpc|grpc\+\+)/": ["server/rpc/", "server/apps/", "client/src/", "client/cli/"],
    r"google/protobuf/": ["server/rpc/", "client/src/"],
    r"prometheus/": ["server/metrics/prometheus/"],
    r"hwy/": ["kernels/cpu/"],
    r"(cuda|cuda_runtime)": ["kernels/cuda/", "server/transport/nccl/", "server/transport/cuipc/"],
    r"cudnn": ["kernels/cuda/cudnn/"],
    r"nccl": ["server/transport/nccl/"],
    r"CLI/": ["client/cli/", "server/apps/"],
    r"isa-l": ["server/transport/"],
    r"hwloc": ["server/machine/"],
}
# The pure layers see no clock, thread, file or socket.
PURE = {"server/ring/": r"^(thread|mutex|condition_variable|future|chrono|fstream|filesystem|ctime|random|unistd\.h|sys/.*|fcntl\.h|netinet/.*)$",
        "server/coordinator/": r"^(thread|fstream|filesystem|unistd\.h|sys/.*|fcntl\.h|netinet/.*)$"}
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')


def layer_of(path):
    matches = [prefix for prefix in LAYERS if path.startswith(prefix)]
    return max(matches, key=len) if matches else None


def offences(path, text):
    layer = layer_of(path)
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        target = match.group(2)
        where = f"{path}:{number}: includes {target}"
        ours = match.group(1) == '"' and re.match(r"(server|kernels|client|annulus|tests)/", target)
        if layer and ours and not target.startswith(layer) and not any(target.startswith(p) for p in LAYERS[layer]):
            yield f"{where}: {layer} may include only {', '.join(LAYERS[layer]) or 'itself'}"
        for vendor, folders in VENDORS.items():
            if not ours and layer and re.match(vendor, target) and not any(path.startswith(f) for f in folders):
                yield f"{where}: only {', '.join(folders)} may"
        for folder, banned in PURE.items():
            if path.startswith(folder) and re.match(banned, target):
                yield f"{where}: {folder} is pure (no clock, thread, file or socket)"


def main():
    found = []
    files = 0
    for top in ("server", "kernels", "client", "tools"):
        for file in sorted((ROOT / top).rglob("*")):
            if file.suffix in (".h", ".cc", ".cu", ".cuh"):
                files += 1
                path = file.relative_to(ROOT).as_posix()
                if layer_of(path) is None:
                    found.append(f"{path}: belongs to no layer of the table")
                found += offences(path, file.read_text())
    print("\n".join(found))
    print(f"{files} files, {len(found)} offences")
    return 1 if found or files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
