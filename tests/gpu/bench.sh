#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Rates on a GPU, from a built tree: the card's matrix product, cuDNN and FlashAttention through an installed PyTorch, and the
# plugin's own kernels, in one go on one card. Writes OUT.json and OUT.md. Builds nothing, needs no network, ends within 10 minutes.
# usage: tests/gpu/bench.sh [build folder] [OUT, docs/benchmarks/gpu] [provider]        exit: 0 written, 1 failed, 77 no GPU
set -uo pipefail
cd "$(dirname "$0")/../.."
BUILD=${1:-build}
OUT=${2:-docs/benchmarks/gpu}
PROVIDER=${3:-auto}
BENCH=$BUILD/tests/annulus-gpu-bench
[ -x "$BENCH" ] || { echo "$BENCH is not there: build with the CUDA toolkit first" >&2; exit 1; }
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT

timeout 330 "$BENCH" --provider "$PROVIDER" >"$lines"
status=$?
if [ $status = 77 ]; then
  echo "skipped: this machine has no GPU that the plugin takes"
  exit 77
fi
[ $status = 0 ] || { echo "annulus-gpu-bench failed ($status)" >&2; exit 1; }
timeout 240 python3 tests/gpu/bench_torch.py >>"$lines" || echo "no figures of PyTorch beside them" >&2
python3 tests/gpu/bench_page.py "$lines" "$OUT" \
  --commit "$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)" --date "$(date -u +%F)" \
  --driver "$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -1)"
