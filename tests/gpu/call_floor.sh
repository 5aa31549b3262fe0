#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a call costs beside its compute on a GPU, from a built tree: two workers on the card, the client's tensors in GPU memory used in
# place, and in the host's memory. Writes OUT.json and OUT.md. Builds nothing, needs no network, ends within 10 minutes.
# usage: tests/gpu/call_floor.sh [build folder] [OUT, docs/benchmarks/gpu-call-floor]        exit: 0 written, 1 failed, 77 no GPU
set -uo pipefail
cd "$(dirname "$0")/../.."
BUILD=${1:-build}
OUT=${2:-docs/benchmarks/gpu-call-floor}
. tests/gpu/common.sh
need "$BUILD/tests/annulus-call-floor" "$BUILD/lib/libannulus-compute-cuda.so"
need_gpu
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT

for memory in device host; do
  timeout 240 "$BUILD/tests/annulus-call-floor" --device cuda --client-memory $memory --dtype bf16 --format json >>"$lines" \
    || { echo "annulus-call-floor with tensors in $memory memory failed" >&2; exit 1; }
done
page calls "$lines" "$OUT"
