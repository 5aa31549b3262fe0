#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every source stands as clang-format leaves it."""
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "*.h", "*.cc", "*.cu", "*.cuh"], capture_output=True, text=True, check=True).stdout.split()
    files = [f for f in listed if (ROOT / f).exists()]
    run = subprocess.run(["clang-format", "--dry-run", "--Werror", *files], cwd=ROOT, capture_output=True, text=True)
    print("\n".join(line for line in run.stderr.splitlines() if "error:" in line))
    print(f"{len(files)} files; mend with: make format")
    return run.returncode or (0 if files else 1)


if __name__ == "__main__":
    sys.exit(main())
