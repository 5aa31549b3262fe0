# SPDX-License-Identifier: Apache-2.0
# What the scripts for a GPU machine share; sourced, from the repository's root, with BUILD set.

# need FILE...: ends with 1 where one was not built.
need() {
  local file
  for file in "$@"; do
    [ -e "$file" ] || { echo "$file is not there: build with the CUDA toolkit first" >&2; exit 1; }
  done
}

# Ends with 77 where there is no GPU.
need_gpu() {
  if ! ls /dev/nvidiactl >/dev/null 2>&1; then
    echo "skipped: this machine has no GPU"
    exit 77
  fi
}

# page KIND LINES OUT: writes OUT.json and OUT.md from lines of JSON, with commit, date, device and driver.
page() {
  python3 tests/gpu/bench_page.py --kind "$1" "$2" "$3" \
    --commit "$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)" --date "$(date -u +%F)" \
    --device "$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1)" \
    --driver "$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -1)"
}
