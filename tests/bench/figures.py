# SPDX-License-Identifier: Apache-2.0
"""What figures are made of: the machine, the work of an attention, interleaved timings and their summary. Standard library only."""
import datetime
import os
import pathlib
import platform
import statistics
import subprocess
import time

DIRECTIONS = ("forward", "backward")
# The backward multiplies five times (scores again, dP, dV, dK, dQ) where the forward does twice.
WORK_OF_FORWARD = {"forward": 1.0, "backward": 2.5}
# OpenMP and Eigen keep their threads spinning for some milliseconds after a call: they would eat into the other side's next one.
SETTLE_S = 0.05


def machine():
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=pathlib.Path(__file__).parent).stdout.strip()
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, {datetime.date.today()}, commit {commit}"


def attention_flops(heads, head_dim, length, causal, direction):
    """Of one sequence: two per multiply-add and cell that the mask leaves, q.k and p.v, exponentials not counted."""
    cells = length * (length + 1) // 2 if causal else length * length
    return WORK_OF_FORWARD[direction] * 4 * heads * head_dim * cells


def seconds_of(call):
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def interleave(rounds, *timers):
    """A B A B ...: what each timer returned in each round. A neighbour that comes and goes then slows both sides of a pair."""
    taken = [[] for _ in timers]
    for _ in range(rounds):
        for timer, seconds in zip(timers, taken):
            time.sleep(SETTLE_S)
            seconds.append(timer())
    return taken


def summary(flops, ours, other_name, other):
    """Both sides and what they differ by; a ratio above 1 says that Annulus took less time."""
    def side(seconds):
        return {"seconds_min": min(seconds), "seconds_median": statistics.median(seconds), "gflops": flops / min(seconds) / 1e9}
    return {"annulus": side(ours), other_name: side(other), "ratio_of_minima": min(other) / min(ours),
            "median_ratio": statistics.median(theirs / mine for mine, theirs in zip(ours, other))}


def relative_rmse(got, expected):
    """Of two float64 arrays, of numpy or torch."""
    difference = got - expected
    return float((difference * difference).sum() / (expected * expected).sum()) ** 0.5
