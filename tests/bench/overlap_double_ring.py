#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What overlap and the double ring are worth on emulated links: N = 8 ranks, 4 a node, links inside a node ten times faster than between nodes.

    overlap_double_ring.py [--rounds 5] [--docs FOLDER] [--compute-plugin cuda --transport-plugin cuipc --emulate-link inner=370GB/s,outer=48GB/s ...]

Unless --emulate-link says them, the rates are set from a run with transfers off, so that on this machine an inner hop takes 0.3 and an outer hop 3 of a step's compute. Four variants, interleaved:
(a) plain ring, transfers between computes; (b) plain ring, transfers beside compute; (c) double ring, w = 4, beside compute; (d) transfers off.
Prints a Markdown table, or with --json a JSON object a variant; with --docs writes the timeline pictures there. Workers on GPUs take turns on --devices.
"""
import argparse
import json
import pathlib
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from cluster import Cluster  # noqa: E402
from figures import machine  # noqa: E402

RANKS, PER_NODE = 8, 4
INNER_HOP_STEPS, OUTER_HOP_STEPS = 0.3, 3.0
BYTES = {"f32": 4, "bf16": 2, "f16": 2}


def shape(args):
    return ["--context-parallel-size", RANKS, "--ranks-per-node", PER_NODE, "--seq-length", args.seq_length, "--num-heads", args.num_heads,
            "--num-kv-heads", args.num_kv_heads, "--head-dim", args.head_dim, "--dtype", args.dtype, "--layout", "contiguous",
            "--cp-attention-mask-type", "full", "--deadline", 120, *(["--compute-plugin", args.compute_plugin] if args.compute_plugin else [])]


def worker_flags(args):
    def flags_of(index):
        return [*(["--compute-plugin", args.compute_plugin, "--device-ordinal", index % args.devices] if args.compute_plugin else []),
                *(["--transport-plugin", args.transport_plugin] if args.transport_plugin else [])]
    return flags_of


def measure(cluster, folder, args, name, *flags):
    report, trace = folder / f"{name}.json", folder / f"{name}.trace.json"
    run = cluster.run(*shape(args), *flags, "--report", report, "--trace", trace)
    if run.returncode:
        sys.exit(f"variant {name} failed: {run.stdout}{run.stderr}")
    return json.loads(report.read_text())


def links_for(cluster, folder, args):
    """The flag, and what it stands for in words."""
    if args.emulate_link:
        return ["--emulate-link", args.emulate_link], f"Links as given: {args.emulate_link}."
    step = min(measure(cluster, folder, args, "calibrate", "--cp-window-size", 4, "--transfers-off")["wall_seconds"] for _ in range(3)) / RANKS
    hop_bytes = 2 * (args.seq_length // RANKS) * args.num_kv_heads * args.head_dim * BYTES[args.dtype]
    outer_rate, inner_rate = hop_bytes / (OUTER_HOP_STEPS * step), hop_bytes / (INNER_HOP_STEPS * step)
    words = (f"Step compute {1e3 * step:.0f} ms; inner hop {1e3 * INNER_HOP_STEPS * step:.0f} ms at {inner_rate / 1e6:.1f} MB/s, outer hop "
             f"{1e3 * OUTER_HOP_STEPS * step:.0f} ms at {outer_rate / 1e6:.1f} MB/s.")
    return ["--emulate-link", f"inner={inner_rate / 1e6:.3f}MB/s,outer={outer_rate / 1e6:.3f}MB/s"], words


def print_json(results, variants, args):
    for name, (words, _) in variants.items():
        def middle(field):
            return statistics.median(r[field] for r in results[name])
        print(json.dumps({"what": words, "seq_length": args.seq_length, "link": args.emulate_link or "calibrated", "wall_seconds": middle("wall_seconds"),
                          "exposed_seconds": middle("exposed_comm_seconds"), "exposed_outer_seconds": middle("exposed_outer_seconds"),
                          "overlap": middle("overlap_ratio"), "client_memory": results[name][0]["client_memory"]["place"]}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--docs", type=pathlib.Path)
    for flag, value in (("--seq-length", 16384), ("--num-heads", 4), ("--num-kv-heads", 4), ("--head-dim", 64), ("--devices", 1)):
        parser.add_argument(flag, type=int, default=value)
    parser.add_argument("--dtype", choices=BYTES, default="f32")
    for flag in ("--compute-plugin", "--transport-plugin", "--emulate-link"):
        parser.add_argument(flag)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with Cluster(workers=RANKS, flags_of=worker_flags(args)) as cluster:
        folder = cluster.folder
        links, links_in_words = links_for(cluster, folder, args)
        variants = {
            "a": ("plain ring, no overlap", ["--cp-window-size", 8, "--no-use-cp-send-recv-overlap", *links]),
            "b": ("plain ring, overlap", ["--cp-window-size", 8, *links]),
            "c": ("double ring w = 4, overlap", ["--cp-window-size", 4, *links]),
            "d": ("transfers off", ["--cp-window-size", 4, "--transfers-off"]),
        }
        results = {name: [] for name in variants}
        for _ in range(args.rounds):
            for name, (_, flags) in variants.items():
                results[name].append(measure(cluster, folder, args, name, *flags))
        if args.json:
            print_json(results, variants, args)
            return
        lines = [links_in_words, "",
                 "| variant | wall s (min) | wall s (median, max) | exposed s a rank (median) | overlap (median) | wall / (d), medians |", "|---|---|---|---|---|---|"]
        ideal = statistics.median(r["wall_seconds"] for r in results["d"])
        for name, (words, _) in variants.items():
            wall = [r["wall_seconds"] for r in results[name]]
            exposed = statistics.median(r["exposed_comm_seconds"] for r in results[name])
            overlap = "-" if name == "d" else f"{statistics.median(r['overlap_ratio'] for r in results[name]):.3f}"
            lines.append(f"| ({name}) {words} | {min(wall):.2f} | {statistics.median(wall):.2f}, {max(wall):.2f} | {exposed:.3f} | {overlap} | {statistics.median(wall) / ideal:.2f} |")
        print("\n".join(lines))
        print(f"\n{machine()}; {args.rounds} interleaved rounds; S = {args.seq_length}, {args.num_heads} heads of {args.head_dim}, {args.dtype}, full mask.")
        if args.docs:
            for name in variants:
                svg = cluster.command("trace", folder / f"{name}.trace.json", "--format=svg")
                (args.docs / f"overlap-{name}.svg").write_text(svg.stdout)


if __name__ == "__main__":
    main()
