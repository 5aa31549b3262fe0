#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The examples against `annulus up`, the RPCs of a steady state, and what remains when the CLI is interrupted or killed."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

BIN = pathlib.Path(os.environ["ANNULUS_BIN"])
SLOW = ["run", "--context-parallel-size", "3", "--seq-length", "2048", "--emulate-link", "inner=1MB/s,outer=1MB/s"]


def wait_until(what, probe, deadline_s=20):
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        answer = probe()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {deadline_s} s")


def processes_in(folder):
    """Processes that have this temporary folder in their environment."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"TMPDIR={folder}\0".encode() in (entry / "environ").read_bytes():
                if (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                    found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            pass
    return found


class Programs(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="annulus-program-")
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        self.environment = {**os.environ, "TMPDIR": str(self.folder)}

    def start(self, *arguments):
        process = subprocess.Popen([BIN / "annulus", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def up(self, workers):
        cluster = self.start("up", "--workers", str(workers), "--format", "json")
        return cluster, json.loads(cluster.stdout.readline())

    def ok(self, *command):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, env=self.environment)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        return done.stdout

    def nothing_left(self):
        wait_until("all processes to end", lambda: not processes_in(self.folder))
        self.assertEqual([], sorted(p.name for p in self.folder.iterdir()))

    def test_examples(self):
        cluster, up = self.up(3)
        self.ok(BIN / "annulus-example-simple_attention", up["coordinator"], 3)
        for _ in range(2):
            self.ok(BIN / "annulus-example-spmd_attention", up["coordinator"], "worker-0,worker-1,worker-2")
        cluster.send_signal(signal.SIGINT)
        self.assertEqual(0, cluster.wait(10))
        self.nothing_left()

    def test_up_loads_the_transports_that_it_is_told_of(self):
        cluster = self.start("up", "--workers", "2", "--format", "json", "--transport-plugin", "host,nowhere?")
        coordinator = json.loads(cluster.stdout.readline())["coordinator"]
        facts = json.loads(self.ok(BIN / "annulus", "topology", "--coordinator", coordinator, "--format", "facts"))
        self.assertEqual([[{"name": "host", "memory": "host"}]] * 2, [worker["transports"] for worker in facts["workers"]])
        self.ok(BIN / "annulus", "run", "--coordinator", coordinator, "--context-parallel-size", 2, "--seq-length", 50, "--inner-transport", "host", "--verify")

    def test_a_steady_state_is_one_rpc_per_worker_and_call(self):
        cluster, up = self.up(2)

        def requests():
            """Requests by process and method; Session and DeleteGroup end with the run."""
            counts = {}
            for process in up["processes"]:
                text = urllib.request.urlopen(f"http://{process['metrics']}/metrics", timeout=10).read().decode()
                for line in text.splitlines():
                    if line.startswith("annulus_requests_total{"):
                        name = process["name"], line.split('method="')[1].split('"')[0]
                        counts[name] = counts.get(name, 0) + float(line.rsplit(" ", 1)[1])
            return counts

        def run(repeat):
            before = requests()
            self.ok(BIN / "annulus", "run", "--coordinator", up["coordinator"], "--context-parallel-size", 2, "--seq-length", 50, "--repeat", repeat)
            return {name: count - before.get(name, 0) for name, count in requests().items()}

        run(1)
        few, many = run(3), run(13)
        more = {name: many[name] - few.get(name, 0) for name in many if name[1] not in ("ListWorkers", "Session") and many[name] != few.get(name, 0)}
        self.assertEqual({("worker-0", "Attend"): 10, ("worker-1", "Attend"): 10}, more)

    def test_interrupt_leaves_nothing(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            run = self.start(*SLOW, "--output", str(self.folder / "o.safetensors"))
            wait_until("workers", lambda: len(processes_in(self.folder)) >= 5)
            run.send_signal(number)
            self.assertNotEqual(0, run.wait(10))
            if number == signal.SIGKILL:  # the folder of port files may remain if it fell in the moment of starting: the next start removes it
                wait_until("all processes to end", lambda: not processes_in(self.folder))
                self.ok(BIN / "annulus", "run", "--context-parallel-size", 1, "--seq-length", 16)
            self.nothing_left()

    def test_a_daemon_that_dies_ends_up_and_is_named(self):
        cluster, up = self.up(2)
        os.kill(next(p["pid"] for p in up["processes"] if p["name"] == "worker-1"), signal.SIGKILL)
        self.assertEqual(4, cluster.wait(10))
        self.assertIn("worker-1", cluster.stderr.read())


if __name__ == "__main__":
    sys.exit(unittest.main())
