#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""peak_bytes_per_worker by ring size at S = 32768: it must fall as 1/N to within 15 %. Exits 1 if it does not.

    memory_table.py [--seq-length 32768]
"""
import argparse
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from cluster import Cluster  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seq-length", type=int, default=32768)
    args = parser.parse_args()
    products = []
    print("| N | peak bytes a worker | times N | of S x S in f32 |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, Cluster(workers=8) as cluster:
        for size in (2, 4, 8):
            report = pathlib.Path(folder) / "report.json"
            run = cluster.run("--context-parallel-size", size, "--seq-length", args.seq_length, "--num-heads", 8, "--num-kv-heads", 2, "--head-dim", 16,
                              "--dtype", "bf16", "--cp-attention-mask-type", "causal", "--layout", "zigzag", "--report", report, "--deadline", 500, timeout=600)
            if run.returncode:
                sys.exit(run.stdout + run.stderr)
            peak = json.loads(report.read_text())["peak_bytes_per_worker"]
            peak = max(peak) if isinstance(peak, list) else peak
            products.append(peak * size)
            print(f"| {size} | {peak:,} | {peak * size:,} | {peak / (4 * args.seq_length**2):.4f} |", flush=True)
    spread = max(products) / min(products) - 1
    print(f"\nspread of peak * N: {100 * spread:.1f} %")
    return 1 if spread > 0.15 else 0


if __name__ == "__main__":
    sys.exit(main())
