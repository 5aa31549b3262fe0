#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The end-to-end matrix over eight real workers.

    matrix_test.py PROGRAM ci|full
"""
import subprocess
import sys

from cluster import Cluster


def main():
    with Cluster(workers=8) as cluster:
        return subprocess.run([sys.argv[1], cluster.address, sys.argv[2]]).returncode


if __name__ == "__main__":
    sys.exit(main())
