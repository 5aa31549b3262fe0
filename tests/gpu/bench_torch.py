#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What an installed PyTorch reaches on this card, one JSON object a line: matrix product (the ceiling), cuDNN and FlashAttention SDPA."""
import json
import statistics
import sys

QUERY_HEADS, KV_HEADS, WINDOWS, WINDOW_SECONDS = 32, 8, 5, 0.05


def seconds(torch, work):
    def window(calls):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(calls):
            work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3 / calls

    work()
    calls = max(1, int(WINDOW_SECONDS / window(1)))
    return statistics.median(window(calls) for _ in range(WINDOWS))


def show(what, rows, head_dim, flops, time):
    print(json.dumps({"what": what, "rows": rows, "head_dim": head_dim, "seconds": time, "tflops": flops / time * 1e-12}), flush=True)


def attention(torch, backend, name, rows, head_dim, causal):
    from torch.nn.attention import sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    def draw(heads):
        return torch.randn(1, heads, rows, head_dim, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    q, k, v = draw(QUERY_HEADS), draw(KV_HEADS), draw(KV_HEADS)
    suffix = "causal" if causal else "full"
    flops = 4 * QUERY_HEADS * head_dim * (rows * (rows + 1) / 2 if causal else rows * rows)
    with sdpa_kernel(backend):
        def forward():
            return scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
        try:
            with torch.no_grad():
                show(f"{name} forward, {suffix}", rows, head_dim, flops, seconds(torch, forward))
            o = forward()
            d_o = torch.randn_like(o)
            show(f"{name} backward, {suffix}", rows, head_dim, 2.5 * flops,
                 seconds(torch, lambda: torch.autograd.grad(o, (q, k, v), d_o, retain_graph=True)))
        except RuntimeError as error:  # a backend that this build or this shape does not have
            print(f"{name} {suffix} {rows} x {head_dim}: {str(error).splitlines()[0]}", file=sys.stderr)


def main():
    try:
        import torch
        from torch.nn.attention import SDPBackend
    except ImportError as error:
        print(f"no PyTorch: {error}", file=sys.stderr)
        return 77
    if not torch.cuda.is_available():
        print("PyTorch sees no CUDA device", file=sys.stderr)
        return 77
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    show("matrix product 8192^3, bf16", 8192, 8192, 2 * 8192**3, seconds(torch, lambda: a @ b))
    for head_dim in (128, 64):
        for rows in (8192, 16384):
            for causal in (False, True):
                attention(torch, SDPBackend.CUDNN_ATTENTION, "cuDNN", rows, head_dim, causal)
                attention(torch, SDPBackend.FLASH_ATTENTION, "FlashAttention", rows, head_dim, causal)
    return 0


if __name__ == "__main__":
    sys.exit(main())
