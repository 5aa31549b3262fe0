#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""From the lines of a benchmark to OUT.json and OUT.md."""
import argparse
import json
import pathlib


# What a ring of eight ranks on one card, paced like NVLink, is to reach: figure, test, in words.
GOALS = (("efficiency", lambda share: share >= 0.93, "ring efficiency", ">= 93 %"), ("overlap", lambda share: share >= 0.95, "overlap", ">= 95 %"),
         ("contention", lambda share: share < 0.03, "contention", "< 3 %"))


def where(run, script):
    return f"{run['device']}, driver {run['driver'] or 'unknown'}, {run['date']}, commit {run['commit']}. `tests/gpu/{script}`"


def table(*columns):
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]


def held_to_goals(figures):
    """A line for each goal, from the causal ring over paced links."""
    ring = next((f for f in figures if f["what"] == "ring forward, causal zigzag" and f["link"] == "inner=370GB/s"), None)
    if ring is None:
        return ["no causal ring over paced links was measured"]
    return [f"{words} {100 * ring[name]:.1f} %, goal {goal}: {'met' if reached(ring[name]) else 'MISSED'}" for name, reached, words, goal in GOALS]


def ring_page(run):
    out = ["# Rings on one GPU", "",
           where(run, "ring_bench.sh") + ": the ranks are processes that share the card and run in turns, so that a step lasts as long as all their kernels "
           "together; bf16, 32 query and 8 KV heads of 128.", "", "Of eight ranks of 8192 tokens, causal, zigzag, links paced to 370 GB/s:", ""]
    out += [f"- {line}" for line in held_to_goals(run["figures"])]
    out += ["", "Straight over the plugins. Efficiency: every rank's kernels alone with the card, one rank after the other, of the whole ring's time; "
            "overlap: 1 - exposed / transfers; contention: how much longer kernels take beside transfers.", ""]
    out += table("what", "tokens a rank", "link", "ideal ms", "compute ms", "transfers ms", "ring ms", "exposed ms", "efficiency", "overlap", "contention")
    for f in run["figures"]:
        if "efficiency" in f:
            times = " | ".join(f"{1e3 * f[name]:.3f}" for name in ("ideal_seconds", "compute_seconds", "comm_seconds", "full_seconds", "exposed_seconds"))
            out.append(f"| {f['what']} | {f['rows']} | {f['link']} | {times} | {f['efficiency']:.3f} | {f['overlap']:.3f} | {f['contention']:.3f} |")
    out += ["", "Through the daemons, tensors in GPU memory, full mask, two nodes of four ranks on the one card; means over the ranks, medians of 5 interleaved rounds. "
            "The second pair of rates is an eighth of the first, as eight ranks have an eighth of the card each.", ""]
    out += table("what", "tokens", "links", "wall ms", "exposed ms", "of it between nodes", "overlap")
    for f in run["figures"]:
        if "exposed_outer_seconds" in f:
            out.append(f"| {f['what']} | {f['seq_length']} | {f['link']} | {1e3 * f['wall_seconds']:.3f} | {1e3 * f['exposed_seconds']:.3f} | "
                       f"{1e3 * f['exposed_outer_seconds']:.3f} | {f['overlap']:.3f} |")
    return out


def calls_page(run):
    out = ["# Call floor on a GPU", "", where(run, "call_floor.sh") + ": two workers on the card.", ""]
    out += table("client's tensors", "tiny call p50 us", "p99 us", "min us", "long call, tokens", "wall ms", "not in compute")
    for tiny in (f for f in run["figures"] if f["what"] == "tiny call"):
        long = next(f for f in run["figures"] if f["what"] == "long call" and f["client_memory"] == tiny["client_memory"])
        times = " | ".join(f"{1e6 * tiny[name]:.0f}" for name in ("p50_seconds", "p99_seconds", "min_seconds"))
        out.append(f"| {tiny['client_memory']} memory | {times} | {long['length']} | {1e3 * long['wall_seconds']:.2f} | {100 * long['not_compute_share']:.2f} % |")
    return out


def transport_page(run):
    out = ["# Transports on a GPU", "", where(run, "transport.sh") + ".", ""]
    out += [f"- suite {f['suite']}: passed" for f in run["figures"] if f["what"] == "suite"]
    out += [f"- a killed peer over {f['transport']}: reported after {f['seconds']:.2f} s, limit 3 s" for f in run["figures"] if f["what"] == "killed peer reported"]
    return out


def kernels_page(run):
    figures = run["figures"]
    out = ["# GPU kernels", "",
           where(run, "bench.sh") + ": "
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
    return out


PAGES = {"kernels": kernels_page, "ring": ring_page, "calls": calls_page, "transport": transport_page}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lines", type=pathlib.Path)
    parser.add_argument("out")
    parser.add_argument("--kind", choices=PAGES, default="kernels")
    parser.add_argument("--device", default="", help="where the lines do not tell it")
    for name in ("commit", "date", "driver"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    lines = [json.loads(line) for line in args.lines.read_text().splitlines() if line.startswith("{")]
    run = {"device": next((line["device"] for line in lines if "device" in line), args.device or "unknown device"), "driver": args.driver, "date": args.date,
           "commit": args.commit, "figures": [line for line in lines if "what" in line]}
    pathlib.Path(args.out + ".json").write_text(json.dumps(run, indent=1) + "\n")
    pathlib.Path(args.out + ".md").write_text("\n".join(PAGES[args.kind](run)) + "\n")
    if args.kind == "ring":
        print("\n".join(held_to_goals(run["figures"])))
    print(f"wrote {args.out}.json and {args.out}.md")


if __name__ == "__main__":
    main()
