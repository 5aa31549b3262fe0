#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""clang-tidy over the project's own sources, from a build's compile_commands.json.

Most of a check's time goes into the headers of libraries, so sources with the same flags are checked together, as one file that
includes them; where they do not compile together (two names alike), each is checked alone. By default what compiles without gRPC
and GoogleTest; --all takes every product source.
"""
import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEAVY = re.compile(r"server/rpc/|server/apps/|client/src/|client/cli/|client/examples/")
GROUP_SIZE_MAX = 10


def compiled_by(path):
    """The file itself, or those that a file of a unity build includes."""
    if path.parent.name != "Unity":
        return [path]
    return [pathlib.Path(name) for name in re.findall(r'^#include "(.*)"', path.read_text(), re.M)]


def sources(build, everything):
    """Path below the root of each source -> its compiler's flags."""
    found = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        words = shlex.split(entry["command"])
        for path in compiled_by(pathlib.Path(entry["file"]).resolve()):
            if not path.is_relative_to(ROOT) or path.suffix == ".cu":  # nvcc's flags are not clang's
                continue
            name = path.relative_to(ROOT).as_posix()
            if re.match(r"(server|kernels|client|tools)/", name) and (everything or not HEAVY.match(name)):
                found[name] = tuple(words[1:words.index("-o")])
    return found


def groups(found):
    """Lists of sources that may be checked together, with their flags."""
    alike = collections.defaultdict(list)
    for name, flags in sorted(found.items()):
        # Highway compiles such a file once for each instruction set, by including it again.
        alone = "foreach_target.h" in (ROOT / name).read_text()
        alike[flags, os.path.dirname(name), name if alone else ""].append(name)
    for (flags, _, _), names in alike.items():
        for first in range(0, len(names), GROUP_SIZE_MAX):
            yield names[first:first + GROUP_SIZE_MAX], flags


def tidy(path, flags):
    return subprocess.run(["clang-tidy", "--quiet", "--extra-arg=-Wno-unknown-warning-option", f"--config-file={ROOT}/.clang-tidy", str(path), "--", *flags],
                          cwd=ROOT, capture_output=True, text=True)


def check(folder, names, flags):
    """What clang-tidy says of the sources, empty where they pass."""
    if len(names) > 1:
        together = folder / (names[0].replace("/", "_"))
        together.write_text("".join(f'#include "{ROOT / name}"  // NOLINT(bugprone-suspicious-include)\n' for name in names))
        if tidy(together, flags).returncode == 0:
            return ""
    runs = [tidy(ROOT / name, flags) for name in names]
    return "".join(run.stdout for run in runs if run.returncode)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    build = args.build.resolve()
    found = sources(build, args.all)
    folder = build / "clang_tidy"
    folder.mkdir(exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        said = [text for text in pool.map(lambda group: check(folder, *group), groups(found)) if text]
    print("".join(said), end="")
    print(f"{len(found)} files, {len(said)} groups of them with offences")
    return 1 if said or not found else 0


if __name__ == "__main__":
    sys.exit(main())
