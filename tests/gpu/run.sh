#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Correctness on a GPU, from a built tree: every kernel against float64, ten runs bit for bit, rings of workers, then
# the sanitizers over small shapes. Transports have a script of their own, transport.sh. Builds nothing, needs no network, ends within 10 minutes.
# usage: tests/gpu/run.sh [build folder]        exit: 0 clean, 1 not, 77 no GPU
set -uo pipefail
cd "$(dirname "$0")/../.."
BUILD=${1:-build}
TEST=$BUILD/tests/annulus-gpu-test
[ -x "$TEST" ] || { echo "$TEST is not there: build with the CUDA toolkit first" >&2; exit 1; }

echo "commit $(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown), $(date -u +%F)"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || true

output=$(timeout 240 "$TEST" 2>&1)
status=$?
echo "$output"
if grep -q "no CUDA device" <<<"$output"; then
  echo "skipped: this machine has no GPU that the plugin takes"
  exit 77
fi
[ $status = 0 ] || { echo "correctness: FAILED"; exit 1; }
echo "correctness: ok"
timeout 120 "$BUILD/tests/annulus-gpu-worker-test" || { echo "workers: FAILED"; exit 1; }
echo "workers: ok"

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer /usr/local/cuda/compute-sanitizer/compute-sanitizer 2>/dev/null | head -1)
if [ -z "$sanitizer" ]; then
  echo "sanitizers: not run, there is no compute-sanitizer on this machine"
  exit 0
fi
for tool in memcheck racecheck synccheck initcheck; do
  if timeout 85 "$sanitizer" --tool "$tool" --error-exitcode 1 "$TEST" --gtest_filter='*GpuSmall.*-*/cudnn' >"$BUILD/$tool.log" 2>&1; then
    echo "$tool: ok"
  else
    echo "$tool: FAILED, see $BUILD/$tool.log"
    tail -30 "$BUILD/$tool.log"
    exit 1
  fi
done
