#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Error against float64 by ring size, as a Markdown table: it must not grow with the ring.

    accuracy_table.py [--seq-length 1024]
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
    parser.add_argument("--seq-length", type=int, default=1024)
    args = parser.parse_args()
    print("| dtype | N (w) | O rel. RMSE | LSE max abs. error | dQ | dK | dV |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, Cluster(workers=16) as cluster:
        for dtype in ("f32", "bf16"):
            for size, window in ((1, 1), (2, 1), (4, 2), (8, 4), (16, 4)):
                report = pathlib.Path(folder) / "report.json"
                run = cluster.run("--context-parallel-size", size, "--cp-window-size", window, "--seq-length", args.seq_length, "--num-heads", 8, "--num-kv-heads", 2,
                                  "--head-dim", 64, "--dtype", dtype, "--layout", "zigzag", "--cp-attention-mask-type", "causal", "--backward", "--verify",
                                  "--seed", 1, "--report", report)
                if run.returncode:
                    sys.exit(run.stdout + run.stderr)
                r = json.loads(report.read_text())
                gradient = r["gradient_relative_rmse"]
                print(f"| {dtype} | {size} ({window}) | {r['relative_rmse']:.2e} | {r['lse_max_abs_error']:.1e} | " +
                      " | ".join(f"{gradient[name]:.2e}" for name in ("dq", "dk", "dv")) + " |", flush=True)


if __name__ == "__main__":
    main()
