#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Nothing that was built names a CUDA library, not even the CUDA plugin: it carries the runtime and opens the driver when asked to."""
import pathlib
import re
import subprocess
import sys

BUILD = pathlib.Path(sys.argv[1])


def needed(file):
    text = subprocess.run(["readelf", "-d", str(file)], capture_output=True, text=True, check=True).stdout
    return re.findall(r"NEEDED.*\[(.*)\]", text)


files = [f for f in [*BUILD.glob("bin/*"), *BUILD.glob("lib/*.so")] if f.is_file() and f.read_bytes()[:4] == b"\x7fELF"]
found = [f"{f.name}: needs {library}" for f in files for library in needed(f) if re.match(r"libcu|libnv|libnccl", library)]
print("\n".join(found))
print(f"{len(files)} programs and plugins, {len(found)} offences")
sys.exit(1 if found or not files else 0)
