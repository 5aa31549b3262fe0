#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""From the lines of a benchmark to OUT.json and OUT.md."""
import argparse
import json
import pathlib


def page(run):
    figures = run["figures"]
    out = ["# GPU kernels", "",
           f"{run['device']}, driver {run['driver'] or 'unknown'}, {run['date']}, commit {run['commit']}. `tests/gpu/bench.sh`: "
           "medians of 5 windows, inputs N(0, 1), bf16, 32 query and 8 KV heads, FLOPs of visible cells only (backward 2.5 times forward).", "",
           "| what | rows | head size | ms | TFLOP/s |", "|---|---|---|---|---|"]
    for f in figures:
        out.append(f"| {f['what']} | {f['rows']} | {f['head_dim']} | {f['seconds'] * 1e3:.3f} | {f['tflops']:.1f} |")
    rates = {(f["what"], f["rows"], f["head_dim"]): f["tflops"] for f in figures}
    ratios = []
    for (what, rows, head_dim), tflops in rates.items():
        if what.startswith("cuDNN"):
            direction, mask = what.removeprefix("cuDNN ").split(", ")
            own = "forward, state in place, " if direction == "forward" else "backward, "
            if own + mask in {w for w, _, _ in rates}:
                ratios.append(f"| {direction}, {mask} | {rows} | {head_dim} | {rates[own + mask, rows, head_dim] / tflops:.2f} |")
    if ratios:
        out += ["", "Own kernels to cuDNN, same run:", "", "| what | rows | head size | ratio |", "|---|---|---|---|", *ratios]
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lines", type=pathlib.Path)
    parser.add_argument("out")
    for name in ("commit", "date", "driver"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    lines = [json.loads(line) for line in args.lines.read_text().splitlines() if line.startswith("{")]
    run = {"device": next(line["device"] for line in lines if "device" in line), "driver": args.driver, "date": args.date,
           "commit": args.commit, "figures": [line for line in lines if "what" in line]}
    pathlib.Path(args.out + ".json").write_text(json.dumps(run, indent=1) + "\n")
    pathlib.Path(args.out + ".md").write_text(page(run))
    print(f"wrote {args.out}.json and {args.out}.md")


if __name__ == "__main__":
    main()
