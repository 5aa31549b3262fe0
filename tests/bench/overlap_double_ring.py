#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What overlap and the double ring are worth on emulated links: N = 8 ranks, 4 a node, links inside a node ten times faster than between nodes.

    overlap_double_ring.py [--rounds 5] [--docs FOLDER]

The rates are set from a run with transfers off, so that on this machine an inner hop takes 0.3 and an outer hop 3 of a step's compute. Four variants, interleaved:
(a) plain ring, transfers between computes; (b) plain ring, transfers beside compute; (c) double ring, w = 4, beside compute; (d) transfers off.
Prints a Markdown table; with --docs writes the timeline pictures there.
"""
import argparse
import json
import pathlib
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from cluster import Cluster  # noqa: E402
from figures import machine  # noqa: E402

RANKS, PER_NODE, SEQUENCE, HEADS, HEAD_DIM = 8, 4, 16384, 4, 64
INNER_HOP_STEPS, OUTER_HOP_STEPS = 0.3, 3.0
HOP_BYTES = 2 * (SEQUENCE // RANKS) * HEADS * HEAD_DIM * 4
SHAPE = ["--context-parallel-size", RANKS, "--ranks-per-node", PER_NODE, "--seq-length", SEQUENCE, "--num-heads", HEADS, "--num-kv-heads", HEADS,
         "--head-dim", HEAD_DIM, "--dtype", "f32", "--layout", "contiguous", "--cp-attention-mask-type", "full", "--deadline", 120]


def measure(cluster, folder, name, *flags):
    report, trace = folder / f"{name}.json", folder / f"{name}.trace.json"
    run = cluster.run(*SHAPE, *flags, "--report", report, "--trace", trace)
    if run.returncode:
        sys.exit(f"variant {name} failed: {run.stdout}{run.stderr}")
    return json.loads(report.read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--docs", type=pathlib.Path)
    args = parser.parse_args()
    with Cluster(workers=RANKS) as cluster:
        folder = cluster.folder
        step = min(measure(cluster, folder, "calibrate", "--cp-window-size", 4, "--transfers-off")["wall_seconds"] for _ in range(3)) / RANKS
        outer_rate = HOP_BYTES / (OUTER_HOP_STEPS * step)
        inner_rate = HOP_BYTES / (INNER_HOP_STEPS * step)
        links = ["--emulate-link", f"inner={inner_rate / 1e6:.3f}MB/s,outer={outer_rate / 1e6:.3f}MB/s"]
        variants = {
            "a": ("plain ring, no overlap", ["--cp-window-size", 8, "--no-use-cp-send-recv-overlap", *links]),
            "b": ("plain ring, overlap", ["--cp-window-size", 8, *links]),
            "c": ("double ring w = 4, overlap", ["--cp-window-size", 4, *links]),
            "d": ("transfers off", ["--cp-window-size", 4, "--transfers-off"]),
        }
        results = {name: [] for name in variants}
        for _ in range(args.rounds):
            for name, (_, flags) in variants.items():
                results[name].append(measure(cluster, folder, name, *flags))
        lines = [f"Step compute {1e3 * step:.0f} ms; inner hop {1e3 * INNER_HOP_STEPS * step:.0f} ms at {inner_rate / 1e6:.1f} MB/s, outer hop "
                 f"{1e3 * OUTER_HOP_STEPS * step:.0f} ms at {outer_rate / 1e6:.1f} MB/s.", "",
                 "| variant | wall s (min) | wall s (median, max) | exposed s a rank (median) | overlap (median) | wall / (d), medians |", "|---|---|---|---|---|---|"]
        ideal = statistics.median(r["wall_seconds"] for r in results["d"])
        for name, (words, _) in variants.items():
            wall = [r["wall_seconds"] for r in results[name]]
            exposed = statistics.median(r["exposed_comm_seconds"] for r in results[name])
            overlap = "-" if name == "d" else f"{statistics.median(r['overlap_ratio'] for r in results[name]):.3f}"
            lines.append(f"| ({name}) {words} | {min(wall):.2f} | {statistics.median(wall):.2f}, {max(wall):.2f} | {exposed:.3f} | {overlap} | {statistics.median(wall) / ideal:.2f} |")
        print("\n".join(lines))
        print(f"\n{machine()}; {args.rounds} interleaved rounds; S = {SEQUENCE}, {HEADS} heads of {HEAD_DIM}, f32, full mask.")
        if args.docs:
            for name in variants:
                svg = cluster.command("trace", folder / f"{name}.trace.json", "--format=svg")
                (args.docs / f"overlap-{name}.svg").write_text(svg.stdout)


if __name__ == "__main__":
    main()
