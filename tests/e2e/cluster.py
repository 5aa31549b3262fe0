# SPDX-License-Identifier: Apache-2.0
"""Real daemons for the end-to-end tests: a coordinator and workers on loopback, in a private folder, gone when the test is."""
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time

BIN = pathlib.Path(os.environ.get("ANNULUS_BIN", pathlib.Path(__file__).resolve().parents[2] / "build/bin"))
START_DEADLINE_S = 20


def wait_until(what, probe, deadline_s=START_DEADLINE_S):
    """The first truthy answer of `probe`; polls, and fails by name at the deadline."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        answer = probe()
        if answer:
            return answer
        time.sleep(0.01)
    raise AssertionError(f"{what}: not within {deadline_s} s")


class Daemon:
    def __init__(self, folder, program, name, *flags):
        self.name = name
        self.port_file = folder / f"{name}.json"
        self.log = folder / f"{name}.log"
        self.port_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([BIN / program, "--port-file", self.port_file, "--die-with-parent", *map(str, flags)],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def addresses(self):
        def probe():
            if self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}: {self.log.read_text()}")
            return self.port_file.exists() and json.loads(self.port_file.read_text())
        return wait_until(f"{self.name} up", probe)

    def descriptors(self):
        """What its open descriptors point to, memfds by name, sockets without their inode."""
        folder = pathlib.Path(f"/proc/{self.process.pid}/fd")
        kinds = []
        for link in folder.iterdir():
            try:
                kinds.append(os.readlink(link).split(":[")[0])
            except FileNotFoundError:
                pass  # closed between the listing and the look
        return sorted(kinds)

    def stop(self, sig=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(sig)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.name} ignored signal {sig}")


class Cluster:
    """with Cluster(workers=4) as cluster: cluster.run("--seq-length", 64, ...). flags_of(index) gives a worker flags of its own."""

    def __init__(self, workers, flags_of=lambda index: ()):
        self.scratch = tempfile.TemporaryDirectory(prefix="annulus-e2e-")
        self.folder = pathlib.Path(self.scratch.name)
        self.workers = {}
        self.coordinator = Daemon(self.folder, "annulus-coordinator", "coordinator", "--listen", "127.0.0.1:0",
                                  "--metrics-listen", "127.0.0.1:0")
        try:
            self.address = self.coordinator.addresses()["listen"]
            for index in range(workers):
                self.add_worker(f"w{index}", *flags_of(index))
            self.wait_live(workers)
        except BaseException:
            self.close()
            raise

    def add_worker(self, name, *flags):
        self.workers[name] = Daemon(self.folder, "annulus-worker", name, "--coordinator", self.address, "--name", name, "--listen",
                                    "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", *flags)
        return self.workers[name]

    def live_workers(self):
        listed = self.command("workers", "--coordinator", self.address, "--format", "json")
        assert listed.returncode == 0, listed.stderr
        return [w for w in json.loads(listed.stdout)["workers"] if w["state"] == "live"]

    def wait_live(self, count):
        for worker in self.workers.values():
            worker.addresses()
        wait_until(f"{count} live workers", lambda: len(self.live_workers()) == count)

    @staticmethod
    def command(*arguments, timeout=120, **options):
        return subprocess.run([BIN / "annulus", *map(str, arguments)], capture_output=True, text=True, timeout=timeout, **options)

    def run(self, *arguments, **options):
        return self.command("run", "--coordinator", self.address, *arguments, **options)

    def start_run(self, *arguments):
        return subprocess.Popen([BIN / "annulus", "run", "--coordinator", self.address, *map(str, arguments)], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def close(self):
        for daemon in [*self.workers.values(), self.coordinator]:
            if daemon.process.poll() is None:
                daemon.process.send_signal(signal.SIGCONT)
                daemon.process.kill()
            daemon.process.wait()
        self.scratch.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
