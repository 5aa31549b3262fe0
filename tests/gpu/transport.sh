#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Transfers of device memory on a GPU, from a built tree: the transport suite over the plugin cuipc, then processes on the one card: a
# ring of them over cuipc, and two ranks over NCCL that take each other for other hosts (NCCL_HOSTID); a killed peer over each, with the
# seconds until it was reported. With OUT, writes OUT.json and OUT.md. Builds nothing, needs no network, ends within 10 minutes.
# usage: tests/gpu/transport.sh [build folder] [OUT, none; docs/benchmarks/gpu-transport]        exit: 0 clean, 1 not, 77 no GPU
set -uo pipefail
cd "$(dirname "$0")/../.."
BUILD=${1:-build}
OUT=${2:-}
. tests/gpu/common.sh
need "$BUILD/tests/annulus-gpu-transport-test" "$BUILD/tests/annulus-gpu-process-test"
need_gpu
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT

# run SUITE SECONDS: the suite's own words; what it measured goes to the lines.
run() {
  local output status
  output=$(timeout "$2" "$BUILD/tests/annulus-gpu-$1-test" 2>&1)
  status=$?
  echo "$output" | tail -40
  if grep -q "no CUDA device" <<<"$output"; then
    echo "skipped: this machine has no GPU that the plugin takes"
    exit 77
  fi
  [ $status = 0 ] || { echo "$1: FAILED"; exit 1; }
  echo "$1: ok"
  echo "{\"what\": \"suite\", \"suite\": \"$1\"}" >>"$lines"
  grep '^{"what"' <<<"$output" >>"$lines"
}

run transport 180
run process 180
if [ ! -x "$BUILD/tests/annulus-gpu-nccl-test" ]; then
  echo "nccl: not run, it was built without nccl.h"
elif ! ls /usr/local/cuda/lib64/libnccl.so.2 >/dev/null 2>&1 && ! ldconfig -p | grep -q "libnccl\.so\.2" && [ -z "${ANNULUS_NCCL_LIBRARY:-}" ]; then
  echo "nccl: not run, there is no libnccl.so.2 on this machine"
else
  export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}:/usr/local/cuda/lib64"
  run nccl 220
fi
[ -z "$OUT" ] || page transport "$lines" "$OUT"
