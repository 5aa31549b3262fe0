#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 and SIGSTOP of one worker at a random moment of a run: the call ends within 3 s naming the culprit, a replacement makes the next run
exact, nobody restarts and nothing leaks.

    faults_test.py [--repetitions 50] [--seed 1]
"""
import argparse
import json
import pathlib
import random
import signal
import sys
import time

from cluster import Cluster, wait_until

RANKS = 4
FAULT_TO_ANSWER_S = 3.0
# Long enough to be hit in the middle: the links are emulated so that a step takes some tenths of a second.
LONG_RUN = ["--context-parallel-size", RANKS, "--cp-window-size", 2, "--seq-length", 2048, "--num-heads", 4, "--num-kv-heads", 4, "--head-dim", 64,
            "--cp-attention-mask-type", "causal", "--layout", "zigzag", "--backward", "--deadline", "30", "--ranks-per-node", 2,
            "--emulate-link", "inner=4MB/s,outer=2MB/s"]
EXACT_RUN = ["--context-parallel-size", RANKS, "--cp-window-size", 2, "--seq-length", 500, "--num-heads", 2, "--head-dim", 32,
             "--cp-attention-mask-type", "causal", "--layout", "zigzag", "--backward", "--verify", "--deadline", "30"]


def running_groups(cluster):
    """Groups in which a worker reports a running request. A report may be a heartbeat old."""
    return {p["group"] for w in cluster.live_workers() for p in w["progress"]}


def one_fault(cluster, sig, rng, number):
    before = cluster.coordinator.process.pid
    old = running_groups(cluster)
    run = cluster.start_run(*LONG_RUN)
    wait_until("the run to begin", lambda: running_groups(cluster) - old or run.poll() is not None)
    time.sleep(rng.uniform(0.0, 1.2))  # where in the run the fault falls is the experiment's variable, not a wait
    assert run.poll() is None, f"the run ended before the fault: {run.communicate()}"
    victim = rng.choice(sorted(cluster.workers))
    daemon = cluster.workers.pop(victim)
    struck = time.monotonic()
    daemon.process.send_signal(sig)
    _, errors = run.communicate(timeout=40)
    took = time.monotonic() - struck
    assert took <= FAULT_TO_ANSWER_S, f"fault {number}: {victim} got signal {sig}, the call ended only after {took:.2f} s: {errors}"
    assert run.returncode == 4, f"fault {number}: exit code {run.returncode}, expected 4: {errors}"
    assert victim in errors and "rank" in errors and "step" in errors, f"fault {number}: {victim} is not named: {errors}"
    cluster.add_worker(f"r{number}")
    cluster.wait_live(RANKS)
    if sig == signal.SIGSTOP and number % 2:
        daemon.process.send_signal(signal.SIGCONT)  # a zombie wakes beside its replacement: it must come back as a fresh worker or stay out
        wait_until("the woken worker to register again", lambda: len(cluster.live_workers()) == RANKS + 1)
    next_run = cluster.run(*EXACT_RUN)
    assert next_run.returncode == 0, f"fault {number}: the next run failed: {next_run.stdout}{next_run.stderr}"
    daemon.process.kill()
    daemon.process.wait()
    wait_until("the victim to be gone", lambda: len(cluster.live_workers()) == RANKS)
    assert cluster.coordinator.process.pid == before and cluster.coordinator.process.poll() is None
    assert all(w.process.poll() is None for w in cluster.workers.values()), "a worker ended by itself"
    return took


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    args = parser.parse_args()
    print(f"seed {args.seed}")
    rng = random.Random(args.seed)
    with Cluster(workers=RANKS) as cluster:
        warm = cluster.run(*EXACT_RUN)
        assert warm.returncode == 0, warm.stdout + warm.stderr
        number, settled = 0, None
        for name, sig in (("SIGKILL", signal.SIGKILL), ("SIGSTOP", signal.SIGSTOP)):
            times = []
            for _ in range(args.repetitions):
                times.append(one_fault(cluster, sig, rng, number))
                number += 1
                settled = settled or len(cluster.coordinator.descriptors())
            print(f"{name}: {len(times)} faults, answer after median {sorted(times)[len(times) // 2]:.2f} s, at most {max(times):.2f} s")
        leaked = wait_until("descriptors to settle", lambda: len(cluster.coordinator.descriptors()) <= settled + 4 or None, 5)
        assert leaked
        for daemon in cluster.workers.values():
            memfds = [d for d in daemon.descriptors() if "memfd" in d and "region" in d]
            assert not memfds, f"{daemon.name} still holds {memfds}"
        print(json.dumps({"descriptors": {d.name: len(d.descriptors()) for d in [cluster.coordinator, *cluster.workers.values()]}}))


if __name__ == "__main__":
    sys.exit(main())
