#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ring attention of two workers beside the authors' own in JAX (package ringattention, arXiv 2310.01889): same tensors, two processors, A B A B.

    compare_jax_ring.py [--seq-length 8192] [--head-dim 128] [--num-heads 4] [--cp-attention-mask-type full,causal]
                        [--direction forward,backward] [--chunk 512,1024,2048] [--rounds 5] [--venv DIR] [--format text|json] [--output FILE]

JAX: two host devices, a jitted shard_map of ringattention, in float32; of the chunk sizes (queries and keys) the one that is fastest for the shape; timed
from the call to block_until_ready, after a warm-up. Annulus: two workers with a thread each; `annulus run --input FILE --repeat 1`; timed is wall_seconds of
the report, from the call to the end of the last worker. Whatever runs, runs on the same two processors.
Before a shape is timed, both results are compared: exit 1 beyond a relative RMSE of 1e-5.
"""
import functools
import itertools
import json
import os
import pathlib
import struct
import sys
import types

import comparison
from figures import attention_flops, interleave, relative_rmse, seconds_of, summary

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from cluster import BIN, Cluster  # noqa: E402

RANKS, AGREE = 2, 1e-5
# ringattention 0.1.2 is the last one. Of JAX the newest that it was seen to work with: its import needs the name that ringattention_of() puts back.
REQUIREMENTS = ["jax==0.10.2", "ringattention==0.1.2"]
INPUTS, GRADIENTS = ("q", "k", "v", "do"), ("dq", "dk", "dv")
DEADLINE_S = 600


def write_safetensors(path, tensors):
    """float32 arrays by name."""
    header, end = {}, 0
    for name, array in tensors.items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            file.write(array.tobytes())


def read_safetensors(numpy, path):
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    return {name: numpy.frombuffer(data[start + tensor["data_offsets"][0]:start + tensor["data_offsets"][1]], numpy.float32).reshape(tensor["shape"])
            for name, tensor in json.loads(data[8:start]).items() if name != "__metadata__"}


def ringattention_of(jax):
    """The package asks jax.lib.xla_bridge, which JAX has dropped, for the platform when it is imported; jax.extend has the same function."""
    import jax.extend.backend
    jax.lib.xla_bridge = types.SimpleNamespace(get_backend=jax.extend.backend.get_backend)
    from ringattention import ringattention
    return ringattention


class Jax:
    """Their side of one shape and mask. `tensors`: numpy arrays [1, S, heads, head_dim]."""

    def __init__(self, tensors, causal):
        import jax
        self.jax, self.ringattention, self.causal = jax, ringattention_of(jax), causal
        self.mesh = jax.sharding.Mesh(jax.devices(), ("ring",))
        self.spec = jax.sharding.PartitionSpec(None, "ring")
        self.tensors = {name: jax.device_put(array, jax.sharding.NamedSharding(self.mesh, self.spec)) for name, array in tensors.items()}
        self.results = {}

    def ring(self, chunk):
        """q, k, v -> o, sharded over the sequence. causal_block_size 1: causal by token."""
        blockwise = {"causal_block_size": 1 if self.causal else None, "query_chunk_size": chunk, "key_chunk_size": chunk, "deterministic": True,
                     "dropout_rng": None, "attn_pdrop": 0.0, "dtype": self.jax.numpy.float32, "policy": self.jax.checkpoint_policies.nothing_saveable,
                     "precision": None, "prevent_cse": True}
        # check_vma: the package's scans start from constants, which that check refuses.
        @functools.partial(self.jax.shard_map, mesh=self.mesh, in_specs=(self.spec,) * 3, out_specs=self.spec, check_vma=False)
        def ring(q, k, v):
            return self.ringattention(q, k, v, None, None, axis_name="ring", float32_logits=True, cache_idx=None, blockwise_kwargs=blockwise)
        return ring

    def call_of(self, chunk, direction):
        """What is timed, compiled and warm: it leaves its results, ready."""
        q, k, v, d_o = (self.tensors[name] for name in INPUTS)
        ring = self.ring(chunk)
        if direction == "forward":
            compiled = self.jax.jit(ring)

            def call():
                self.results["o"] = self.jax.block_until_ready(compiled(q, k, v))
        else:
            _, pull_back = self.jax.jit(functools.partial(self.jax.vjp, ring))(q, k, v)  # holds what the forward saved
            compiled = self.jax.jit(lambda pull_back, d_o: pull_back(d_o))

            def call():
                self.results.update(zip(GRADIENTS, self.jax.block_until_ready(compiled(pull_back, d_o))))
        call()
        return call


def run_annulus(cluster, input_file, mask, direction, *flags):
    """The report of one call."""
    report = cluster.folder / "report.json"
    run = cluster.run("--context-parallel-size", RANKS, "--input", input_file, "--repeat", 1, "--report", report, "--cp-attention-mask-type", mask,
                      "--deadline", DEADLINE_S, *(["--backward"] if direction == "backward" else []), *flags, timeout=2 * DEADLINE_S)
    if run.returncode:
        sys.exit(f"annulus run failed: {run.stdout}{run.stderr}")
    return json.loads(report.read_text())[direction]


def compare(numpy, cluster, args, shape, report):
    """The directions of one shape and mask: each checked, then timed."""
    generator = numpy.random.default_rng(0)
    tensors = {name: generator.standard_normal((1, shape["S"], shape["heads"], shape["D"]), dtype=numpy.float32) for name in INPUTS}
    input_file, output_file = cluster.folder / "input.safetensors", cluster.folder / "output.safetensors"
    write_safetensors(input_file, tensors)
    theirs = Jax(tensors, shape["mask"] == "causal")
    for direction in args.direction:
        calls = {chunk: theirs.call_of(chunk, direction) for chunk in args.chunk}
        seconds = dict(zip(calls, interleave(2, *(functools.partial(seconds_of, call) for call in calls.values()))))
        best = min(calls, key=lambda chunk: min(seconds[chunk]))

        ours = functools.partial(run_annulus, cluster, input_file, shape["mask"], direction)
        ours("--output", output_file)
        got = read_safetensors(numpy, output_file)
        errors = {name: relative_rmse(got[name].astype(float), numpy.asarray(theirs.results[name]).astype(float))
                  for name in (("o",) if direction == "forward" else GRADIENTS)}
        row = {**shape, "direction": direction, "chunk": best}
        comparison.require_agreement(row, errors, AGREE)
        taken = interleave(args.rounds, functools.partial(seconds_of, calls[best]), lambda: ours()["wall_seconds"])
        flops = attention_flops(shape["heads"], shape["D"], shape["S"], shape["mask"] == "causal", direction)
        report.add(row, errors, summary(flops, taken[1], "jax", taken[0]))


def flags():
    parser = comparison.parser_of(__doc__, "venv-jax-ring")
    parser.add_argument("--seq-length", type=comparison.numbers, default=[8192])
    parser.add_argument("--head-dim", type=comparison.numbers, default=[128])
    parser.add_argument("--num-heads", type=comparison.numbers, default=[4])
    parser.add_argument("--chunk", type=comparison.numbers, default=[512, 1024, 2048])
    args = comparison.parse(parser)
    for length, chunk in itertools.product(args.seq_length, args.chunk):
        if length % (RANKS * chunk):
            parser.error(f"--chunk: expected divisors of the {length} / {RANKS} tokens of a device, got {chunk}")
    missing = [name for name in ("annulus", "annulus-coordinator", "annulus-worker") if not (BIN / name).exists()]
    if missing:
        parser.error(f"not in {BIN}: {', '.join(missing)} (make build makes them)")
    return args


def main():
    args = flags()
    comparison.enter_venv(args.venv, REQUIREMENTS)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:RANKS])  # before JAX counts processors; the workers inherit it
    os.environ.update(XLA_FLAGS=f"--xla_force_host_platform_device_count={RANKS}", JAX_PLATFORMS="cpu")
    import numpy

    about = {"jax": ", ".join(requirement.replace("==", " ") for requirement in REQUIREMENTS) + f", {RANKS} host devices",
             "annulus": f"{RANKS} workers with a thread each, zigzag layout", "dtype": "f32"}
    report = comparison.Report(args, "jax", about, ("mask", "D", "heads", "S", "direction", "chunk"))
    with Cluster(RANKS, flags_of=lambda index: ("--threads", 1)) as cluster:
        for mask, head_dim, heads, length in itertools.product(args.cp_attention_mask_type, args.head_dim, args.num_heads, args.seq_length):
            compare(numpy, cluster, args, {"mask": mask, "D": head_dim, "heads": heads, "S": length}, report)
    report.end()


if __name__ == "__main__":
    main()
