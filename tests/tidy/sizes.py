#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""No file over 500 lines, no function over 100, SPDX first: but for what exceptions.txt lists with its reason."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE_LINES, FUNCTION_LINES = 500, 100
SOURCES = {".h", ".cc", ".cu", ".cuh", ".py", ".proto"}


def exceptions():
    allowed = {}
    for line in (ROOT / "tests/tidy/exceptions.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            key, _, reason = line.partition(":")
            assert len(reason.strip()) > 20, f"exceptions.txt: {key} needs a reason"
            allowed[key.strip()] = False
    return allowed


def functions(lines):
    """(first line, length, name) of each braced block that is not a namespace, class, enum or the like.
    Relies on clang-format: a function at namespace scope closes with '}' in column 0, in a class in column 2."""
    for indent in ("", "  "):
        start = None
        for number, line in enumerate(lines, 1):
            if start is None and line.rstrip().endswith("{"):
                header = line.strip()
                first = number
                while first > 1 and lines[first - 2].strip() and not re.search(r"[;}{:]\s*$|^\s*(//|#)", lines[first - 2]):
                    first -= 1
                    header = lines[first - 1].strip() + " " + header
                if not re.match(rf"{indent}\S", lines[first - 1]):
                    continue
                if not re.match(r"(inline )?(namespace|class|struct|enum|union|extern|export)\b|.*\b(class|struct|enum|union)\b[^()]*\{$", header):
                    start = (first, header)
            elif start and re.match(rf"{indent}\}}", line):
                if "(" in start[1]:
                    yield start[0], number - start[0] + 1, start[1][:80]
                start = None


def main():
    allowed, found = exceptions(), []
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True).stdout.split()
    files = [f for f in listed if pathlib.Path(f).suffix in SOURCES and (ROOT / f).exists()]
    for path in files:
        text = (ROOT / path).read_text()
        lines = text.splitlines()
        if "SPDX-License-Identifier" not in "\n".join(lines[:3]):
            found.append(f"{path}: no SPDX line at its head")
        if len(lines) > FILE_LINES:
            if path in allowed:
                allowed[path] = True
            else:
                found.append(f"{path}: {len(lines)} lines, at most {FILE_LINES}")
        if path.endswith((".h", ".cc", ".cu", ".cuh")):
            for first, length, name in functions(lines):
                key = f"{path}#{first}"
                if length > FUNCTION_LINES:
                    names = [k for k in allowed if k.startswith(path + "#") and k.split("#")[1] in name]
                    if names:
                        allowed[names[0]] = True
                    else:
                        found.append(f"{path}:{first}: {length} lines in one function, at most {FUNCTION_LINES}: {name}")
    found += [f"exceptions.txt: {key} is no exception any more" for key, used in allowed.items() if not used]
    print("\n".join(found))
    print(f"{len(files)} files, {len(found)} offences")
    return 1 if found or not files else 0


if __name__ == "__main__":
    sys.exit(main())
