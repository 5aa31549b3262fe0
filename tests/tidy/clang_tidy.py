#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""clang-tidy over the project's own sources, two at a time, from a build's compile_commands.json.

By default what compiles without gRPC and GoogleTest (a file with them takes half a minute each); --all takes every product source.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEAVY = re.compile(r"server/rpc/|server/apps/|client/src/|client/cli/|client/examples/")


def sources(build, everything):
    for entry in json.loads((build / "compile_commands.json").read_text()):
        path = pathlib.Path(entry["file"]).resolve()
        if not path.is_relative_to(ROOT) or path.suffix == ".cu":  # nvcc's flags are not clang's
            continue
        name = path.relative_to(ROOT).as_posix()
        if re.match(r"(server|kernels|client|tools)/", name) and (everything or not HEAVY.match(name)):
            yield name


def check(build, name):
    run = subprocess.run(["clang-tidy", "-p", str(build), "--quiet", "--extra-arg=-Wno-unknown-warning-option", name], cwd=ROOT, capture_output=True, text=True)
    return name, run.returncode, run.stdout


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    names, bad = sorted(set(sources(args.build.resolve(), args.all))), 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, code, text in pool.map(lambda n: check(args.build.resolve(), n), names):
            if code:
                bad += 1
                print(f"{name}:\n{text}")
    print(f"{len(names)} files, {bad} with offences")
    return 1 if bad or not names else 0


if __name__ == "__main__":
    sys.exit(main())
