#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The CPU kernels beside PyTorch's scaled_dot_product_attention: same tensors, same number of threads, one process, A B A B.

    compare_pytorch.py [--seq-length 2048,8192,12288] [--head-dim 64,128] [--num-heads 4] [--num-kv-heads 4,1] [--dtype f32,bf16]
                       [--cp-attention-mask-type full,causal] [--direction forward,backward] [--threads 1,2] [--rounds 5]
                       [--library build/lib/libannulus-compute-cpu.so] [--compute-provider NAME] [--venv DIR] [--format text|json] [--output FILE]

Each side has its own layout, contiguous: PyTorch [batch, heads, rows, head size], Annulus [batch, rows, heads, head size]. PyTorch is held to its flash
backend; GQA is its enable_gqa. Timed is what a caller waits for: of PyTorch the call, or torch.autograd.grad of a kept graph; of Annulus reset and attend, or
delta, zeroed gradients and attend_backward, and with bf16 the rounding of float32 results, which PyTorch's are too.
Before a shape is timed, both results are compared with PyTorch's in float32: exit 1 where Annulus is beyond a relative RMSE of 1e-5 (f32) or 3e-3 (bf16).
How far PyTorch's own bf16 is from them is shown beside it.
"""
import itertools
import pathlib
import re

import comparison
from compute_abi import Compute, ComputeError, row_stat, tensor
from figures import attention_flops, interleave, relative_rmse, seconds_of, summary

AGREE = {"f32": 1e-5, "bf16": 3e-3}
NAMES = {"forward": ("o",), "backward": ("dq", "dk", "dv")}


class Annulus:
    """Our side of one shape. `q`, `k`, `v`, `d_o`: torch tensors [1, rows, heads, head_dim]."""

    def __init__(self, torch, device, dtype, q, k, v, d_o, causal):
        self.device, self.dtype, self.causal, self.scale = device, dtype, causal, q.shape[-1] ** -0.5
        self.memory = []  # what the views point into
        self.q, self.k, self.v, self.d_o = (self.view(t) for t in (q, k, v, d_o))
        self.sums = {name: torch.empty_like(of, dtype=torch.float32) for name, of in {"o": q, "dq": q, "dk": k, "dv": v}.items()}
        # float32 is what the kernels leave; with bf16 there is one step more.
        self.results = self.sums if dtype == "f32" else {name: torch.empty_like(sums, dtype=q.dtype) for name, sums in self.sums.items()}
        self.sum_views = {name: self.view(sums) for name, sums in self.sums.items()}
        self.result_views = {name: self.view(result) for name, result in self.results.items()}
        self.lse, self.delta = (self.statistic(torch.empty(q.shape[:3])) for _ in range(2))

    def view(self, memory):
        self.memory.append(memory)
        return tensor(memory.data_ptr(), "f32" if memory.element_size() == 4 else self.dtype, memory.shape)

    def statistic(self, memory):
        self.memory.append(memory)
        return row_stat(memory.data_ptr(), memory.shape)

    def round(self, *names):
        if self.results is not self.sums:
            for name in names:
                self.device.finish(self.sum_views[name], self.result_views[name])

    def forward(self):
        self.device.reset(self.sum_views["o"], self.lse)
        self.device.attend(self.q, self.k, self.v, self.sum_views["o"], self.lse, self.causal, self.scale)
        self.round("o")

    def backward(self):
        gradients = [self.sum_views[name] for name in ("dq", "dk", "dv")]
        for name in ("dq", "dk", "dv"):
            self.device.fill_zero(self.sums[name].data_ptr(), self.sums[name].nbytes)
        self.device.backward_prepare(self.d_o, self.sum_views["o"], self.delta)
        self.device.attend_backward(self.q, self.k, self.v, self.d_o, *gradients, self.lse, self.delta, self.causal, self.scale)
        self.round("dq", "dk", "dv")


class PyTorch:
    """Their side of one shape, of the same tensors."""

    def __init__(self, torch, q, k, v, d_o, causal):
        self.torch, self.causal = torch, causal
        self.q, self.k, self.v, self.d_o = (t.transpose(1, 2).contiguous() for t in (q, k, v, d_o))
        self.results = {}

    def attend(self):
        with self.torch.nn.attention.sdpa_kernel(self.torch.nn.attention.SDPBackend.FLASH_ATTENTION):
            return self.torch.nn.functional.scaled_dot_product_attention(self.q, self.k, self.v, is_causal=self.causal,
                                                                         enable_gqa=self.q.shape[1] != self.k.shape[1])

    def forward(self):
        with self.torch.no_grad():
            self.results["o"] = self.attend()

    def keep_graph(self):
        for t in (self.q, self.k, self.v):
            t.requires_grad_()
        self.graph = self.attend()

    def backward(self):
        gradients = self.torch.autograd.grad(self.graph, (self.q, self.k, self.v), self.d_o, retain_graph=True)
        self.results.update(zip(("dq", "dk", "dv"), gradients))


def exact(torch, q, k, v, d_o, causal, directions):
    """What both sides should give, by name: PyTorch's results in float32."""
    side = PyTorch(torch, *(t.float() for t in (q, k, v, d_o)), causal)
    side.forward()
    if "backward" in directions:
        side.keep_graph()
        side.backward()
    return {name: result.transpose(1, 2).double() for name, result in side.results.items()}


def compare(torch, device, args, shape, report):
    """The directions of one shape: each checked, then timed."""
    causal, dtype, heads = shape["mask"] == "causal", shape["dtype"], shape["heads"]
    generator = torch.Generator().manual_seed(0)
    q, k, v, d_o = (torch.randn((1, shape["S"], count, shape["D"]), generator=generator).to({"f32": torch.float32, "bf16": torch.bfloat16}[dtype])
                    for count in (heads, shape["KV"], shape["KV"], heads))
    ours, theirs = Annulus(torch, device, dtype, q, k, v, d_o, causal), PyTorch(torch, q, k, v, d_o, causal)
    expected = exact(torch, q, k, v, d_o, causal, args.direction)
    ours.forward()  # the backward starts from its o and lse
    for direction in args.direction:
        if direction == "backward":
            theirs.keep_graph()
        calls = [getattr(side, direction) for side in (ours, theirs)]
        for call in calls:
            call()
        names = NAMES[direction]
        errors = {name: relative_rmse(ours.results[name].double(), expected[name]) for name in names}
        row = {**shape, "direction": direction}
        comparison.require_agreement(row, errors, AGREE[dtype])
        if dtype != "f32":  # the expected results are PyTorch's in float32
            errors.update({f"pytorch {name}": relative_rmse(theirs.results[name].transpose(1, 2).double(), expected[name]) for name in names})
        taken = interleave(args.rounds, *(lambda call=call: seconds_of(call) for call in calls))
        report.add(row, errors, summary(attention_flops(heads, shape["D"], shape["S"], causal, direction), taken[0], "pytorch", taken[1]))


def flags():
    parser = comparison.parser_of(__doc__, "venv-pytorch")
    parser.add_argument("--seq-length", type=comparison.numbers, default=[2048, 8192, 12288])
    parser.add_argument("--head-dim", type=comparison.numbers, default=[64, 128])
    parser.add_argument("--num-heads", type=comparison.number, default=4)
    parser.add_argument("--num-kv-heads", type=comparison.numbers, default=[4, 1])
    parser.add_argument("--dtype", type=comparison.words_of(*AGREE), default=list(AGREE))
    parser.add_argument("--threads", type=comparison.numbers, default=[1, 2])
    parser.add_argument("--library", type=pathlib.Path, default=comparison.BUILD / "lib/libannulus-compute-cpu.so")
    parser.add_argument("--compute-provider", help="kernels of the library, such as vectors (default: the fastest)")
    args = comparison.parse(parser)
    for count in args.num_kv_heads:
        if args.num_heads % count:
            parser.error(f"--num-kv-heads: expected divisors of {args.num_heads} query heads, got {count}")
    try:
        args.compute = Compute(args.library)
    except (OSError, ComputeError) as error:
        parser.error(f"--library: {error} (make build makes it)")
    try:
        with args.compute.open(threads=1, provider=args.compute_provider) as device:
            args.device = device.description().split(",")[0]  # "cpu: AVX3 with AMX, 1 thread"
    except ComputeError as error:
        parser.error(f"{'--compute-provider' if args.compute_provider else '--library'}: {error}")
    return args


def main():
    args = flags()
    comparison.enter_venv(args.venv, ["torch", "numpy"])
    import torch
    import torch.nn.attention

    built = torch.__config__.show()
    about = {"annulus": args.device, "pytorch": f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, " +
             ", ".join(re.findall(r"BLAS_INFO=\w+|Math Kernel Library Version \S+|MKL-DNN v\S+", built)),
             "layouts": "pytorch [B, H, S, D], annulus [B, S, H, D], each contiguous"}
    report = comparison.Report(args, "pytorch", about, ("dtype", "mask", "D", "heads", "KV", "threads", "S", "direction"))
    for threads in args.threads:
        torch.set_num_threads(threads)
        with args.compute.open(threads, args.compute_provider) as device:
            for dtype, mask, head_dim, kv_heads, length in itertools.product(args.dtype, args.cp_attention_mask_type, args.head_dim, args.num_kv_heads,
                                                                             args.seq_length):
                compare(torch, device, args, {"dtype": dtype, "mask": mask, "D": head_dim, "heads": args.num_heads, "KV": kv_heads, "threads": threads,
                                              "S": length}, report)
    report.end()


if __name__ == "__main__":
    main()
