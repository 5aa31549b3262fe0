#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Rings of processes on one GPU, from a built tree: what transfers by the copy engine cost the kernels beside them, as fast as the card
# copies and paced like NVLink (370 GB/s), held to the goals; then the plain ring beside the double ring through the daemons, with
# links between nodes paced to 48 GB/s, and to an eighth of both rates, since eight ranks share one card's arithmetic.
# Writes OUT.json and OUT.md. Builds nothing, needs no network, ends within 10 minutes.
# usage: tests/gpu/ring_bench.sh [build folder] [OUT, docs/benchmarks/gpu-ring] [ranks, 8]        exit: 0 written, 1 failed, 77 no GPU
set -uo pipefail
cd "$(dirname "$0")/../.."
BUILD=${1:-build}
OUT=${2:-docs/benchmarks/gpu-ring}
. tests/gpu/common.sh
need "$BUILD/tests/annulus-gpu-ring-bench" "$BUILD/bin/annulus" "$BUILD/lib/libannulus-compute-cuda.so" "$BUILD/lib/libannulus-transport-cuipc.so"
need_gpu
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT

timeout 330 "$BUILD/tests/annulus-gpu-ring-bench" "${3:-8}" >"$lines"
status=$?
if [ $status = 77 ]; then
  echo "skipped: this machine has no GPU that the plugins take"
  exit 77
fi
[ $status = 0 ] || { echo "annulus-gpu-ring-bench failed ($status)" >&2; exit 1; }
for links in inner=370GB/s,outer=48GB/s inner=46250MB/s,outer=6GB/s; do
  for tokens in 8192 65536; do
    ANNULUS_BIN=$BUILD/bin timeout 60 python3 tests/bench/overlap_double_ring.py --json --rounds 5 --compute-plugin cuda --transport-plugin cuipc \
      --emulate-link $links --seq-length $tokens --num-heads 32 --num-kv-heads 8 --head-dim 128 --dtype bf16 >>"$lines" \
      || { echo "plain beside double ring over $links, $tokens tokens: failed" >&2; exit 1; }
  done
done
page ring "$lines" "$OUT"
