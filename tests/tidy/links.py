#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every relative link of every Markdown file resolves, headings included; every path in backticks that looks like one exists."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:server|kernels|client|proto|tests|docs|tools|cmake|deploy)/[A-Za-z0-9_./-]+)`")


def anchors(file):
    heads = re.findall(r"^#+\s+(.*)$", file.read_text(), re.M)
    return {re.sub(r"[^a-z0-9 _-]", "", h.lower()).strip().replace(" ", "-") for h in heads}


def offences(file):
    text = re.sub(r"```.*?```", "", file.read_text(), flags=re.S)
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        goal = (file.parent / path).resolve() if path else file
        if not goal.exists():
            yield f"link to {target}: no such file"
        elif anchor and goal.suffix == ".md" and anchor not in anchors(goal):
            yield f"link to {target}: no such heading"
    for path in PATH.findall(text):
        if not (ROOT / path).exists() and not list(ROOT.glob(path.rstrip("/") + ".*")):
            yield f"names {path}: no such file"


def main():
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "*.md"], capture_output=True, text=True, check=True).stdout.split()
    found = [f"{name}: {o}" for name in listed if (ROOT / name).exists() for o in offences(ROOT / name)]
    print("\n".join(found))
    print(f"{len(listed)} documents, {len(found)} offences")
    return 1 if found or not listed else 0


if __name__ == "__main__":
    sys.exit(main())
