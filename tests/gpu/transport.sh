#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Transfers of device memory on a GPU, from a built tree: the transport suite over the plugin cuipc, then a ring of processes on
# the one card and a killed peer. Builds nothing, needs no network, ends within 10 minutes.
# usage: tests/gpu/transport.sh [build folder]        exit: 0 clean, 1 not, 77 no GPU
set -uo pipefail
cd "$(dirname "$0")/../.."
BUILD=${1:-build}
for suite in transport process; do
  TEST=$BUILD/tests/annulus-gpu-$suite-test
  [ -x "$TEST" ] || { echo "$TEST is not there: build with the CUDA toolkit first" >&2; exit 1; }
  output=$(timeout 280 "$TEST" 2>&1)
  status=$?
  echo "$output" | tail -40
  if grep -q "no CUDA device" <<<"$output"; then
    echo "skipped: this machine has no GPU that the plugin takes"
    exit 77
  fi
  [ $status = 0 ] || { echo "$suite: FAILED"; exit 1; }
  echo "$suite: ok"
done
