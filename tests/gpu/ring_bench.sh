#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A ring of processes on one GPU, from a built tree: what transfers by the copy engine cost the kernels beside them, as fast as the
# card copies and paced like NVLink. Writes OUT.json. Builds nothing, needs no network, ends within 10 minutes.
# usage: tests/gpu/ring_bench.sh [build folder] [OUT, docs/benchmarks/gpu-ring] [ranks, 8]        exit: 0 written, 1 failed, 77 no GPU
set -uo pipefail
cd "$(dirname "$0")/../.."
BUILD=${1:-build}
OUT=${2:-docs/benchmarks/gpu-ring}
BENCH=$BUILD/tests/annulus-gpu-ring-bench
[ -x "$BENCH" ] || { echo "$BENCH is not there: build with the CUDA toolkit first" >&2; exit 1; }
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT

timeout 580 "$BENCH" "${3:-8}" >"$lines"
status=$?
if [ $status = 77 ]; then
  echo "skipped: this machine has no GPU that the plugins take"
  exit 77
fi
[ $status = 0 ] || { echo "annulus-gpu-ring-bench failed ($status)" >&2; exit 1; }
python3 - "$lines" "$OUT.json" "$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)" "$(date -u +%F)" <<'PYTHON'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1]) if line.startswith("{")]
run = {"device": next(line["device"] for line in lines if "device" in line), "commit": sys.argv[3], "date": sys.argv[4],
       "figures": [line for line in lines if "what" in line]}
with open(sys.argv[2], "w") as out:
    out.write(json.dumps(run, indent=1) + "\n")
print(f"wrote {sys.argv[2]}")
PYTHON
