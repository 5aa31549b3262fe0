#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws rings.svg (README) and double_ring_schedule.svg (docs/algorithms.md). Standard library only.

    python3 docs/images/make_images.py
"""
import math
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
COLOURS = ["#4e79a7", "#59a14f", "#b07aa1", "#e15759", "#f28e2b", "#76b7b2", "#9c755f", "#edc948"]
INNER, OUTER, INK = "#2f6fb0", "#d9632a", "#24292f"
FONT = 'font-family="Helvetica,Arial,sans-serif"'


def text(x, y, words, size=13, anchor="middle", fill=INK, weight="normal"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" font-weight="{weight}">{words}</text>'


def page(width, height, body):
    markers = "".join(f'<marker id="{name}" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto"><path d="M0,0 L7,3 L0,6 z" fill="{colour}"/></marker>'
                      for name, colour in (("inner", INNER), ("outer", OUTER)))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" {FONT}>\n'
            f'<defs>{markers}</defs>\n<rect width="{width}" height="{height}" fill="#ffffff"/>\n' + "\n".join(body) + "\n</svg>\n")


def arrow(x1, y1, x2, y2, kind, bend=0.0, width=2.4):
    colour = INNER if kind == "inner" else OUTER
    mx, my = (x1 + x2) / 2, (y1 + y2) / 2
    dx, dy = x2 - x1, y2 - y1
    cx, cy = mx - dy * bend, my + dx * bend
    return f'<path d="M{x1:.1f},{y1:.1f} Q{cx:.1f},{cy:.1f} {x2:.1f},{y2:.1f}" fill="none" stroke="{colour}" stroke-width="{width}" marker-end="url(#{kind})"/>'


def rings():
    body, radius, shard = [], 92, 27
    centres = [(190, 172), (610, 172)]
    for window, (cx, cy) in enumerate(centres):
        body.append(f'<rect x="{cx - 165}" y="{cy - 142}" width="330" height="284" rx="16" fill="#f6f8fa" stroke="#d0d7de"/>')
        body.append(text(cx, cy - 4, f"node {window}", 15, weight="bold"))
        body.append(text(cx, cy + 14, "inner ring", 12, fill=INNER))
        spots = [(cx + radius * math.sin(math.pi / 2 * i + math.pi / 4), cy - radius * math.cos(math.pi / 2 * i + math.pi / 4)) for i in range(4)]
        for i, (x, y) in enumerate(spots):
            nx, ny = spots[(i + 1) % 4]
            d = math.hypot(nx - x, ny - y)
            ux, uy = (nx - x) / d, (ny - y) / d
            body.append(arrow(x + ux * (shard + 3), y + uy * (shard + 3), nx - ux * (shard + 6), ny - uy * (shard + 6), "inner", -0.12))
        for i, (x, y) in enumerate(spots):
            rank = 4 * window + i
            body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{shard}" fill="{COLOURS[rank]}"/>')
            body.append(text(x, y - 2, f"Q{rank}", 13, fill="#ffffff", weight="bold"))
            body.append(text(x, y + 13, "KV &#8594;", 10, fill="#ffffff"))
    body.append(arrow(300, 62, 496, 62, "outer", -0.16, 3))
    body.append(arrow(500, 282, 304, 282, "outer", -0.16, 3))
    body.append(text(400, 30, "outer ring: one hop a round, over every NIC", 12, fill=OUTER))
    y, x0, unit = 372, 150, 118
    body.append(text(x0 - 14, y + 16, "compute", 12, "end"))
    body.append(text(x0 - 14, y + 42, "inner hop", 12, "end", INNER))
    body.append(text(x0 - 14, y + 64, "outer hop", 12, "end", OUTER))
    for step in range(5):
        body.append(f'<rect x="{x0 + step * unit}" y="{y}" width="{unit - 3}" height="24" rx="3" fill="{COLOURS[(8 - step) % 4 if step < 4 else 4]}"/>')
        body.append(text(x0 + step * unit + unit / 2, y + 16, f"Q0 x KV{[0, 3, 2, 1, 4][step]}", 12, fill="#ffffff"))
        if step not in (3, 4):
            body.append(f'<rect x="{x0 + step * unit}" y="{y + 32}" width="{unit * 0.45}" height="13" rx="3" fill="{INNER}"/>')
    body.append(f'<rect x="{x0}" y="{y + 54}" width="{unit * 3.4}" height="13" rx="3" fill="{OUTER}"/>')
    body.append(text(x0 + unit * 5 + 4, y + 16, "...", 16, "start"))
    body.append(text(x0 + unit * 2.5, y + 92, "Each rank keeps its queries; keys and values travel beneath the compute. Partial softmax results merge in fp32.", 12, fill="#57606a"))
    return page(800, 480, body)


def schedule(ranks=8, window=4):
    body, cell, left, top = [], 66, 160, 78
    windows = ranks // window
    body.append(text(20, 26, "Double ring, forward, N = 8, w = 4: whose KV each rank attends in each step", 15, "start", weight="bold"))
    for step in range(ranks):
        body.append(text(left + step * cell + cell / 2, top - 10, f"step {step}", 12))
    for j in range(windows):
        x = left + j * window * cell
        body.append(text(x + window * cell / 2, top - 30, f"outer round {j}", 12, fill=OUTER))
        body.append(f'<line x1="{x + 3}" y1="{top - 25}" x2="{x + window * cell - 3}" y2="{top - 25}" stroke="{OUTER}"/>')
    for rank in range(ranks):
        w, i = divmod(rank, window)
        y = top + rank * 36 + (12 if w else 0)
        body.append(text(left - 12, y + 20, f"rank {rank} (W={w}, i={i})", 12, "end"))
        for step in range(ranks):
            j, t = divmod(step, window)
            owner = (w - j) % windows * window + (i - t) % window
            x = left + step * cell
            edge = "#ffffff" if step == 0 else (OUTER if t == 0 else INNER)
            body.append(f'<rect x="{x + 3}" y="{y}" width="{cell - 6}" height="28" rx="4" fill="{COLOURS[owner]}" stroke="{edge}" stroke-width="3"/>')
            body.append(text(x + cell / 2, y + 19, f"KV{owner}", 12, fill="#ffffff", weight="bold"))
    y = top + ranks * 36 + 36
    for k, (colour, words) in enumerate(((INNER, "came over an inner hop, from (W, i-1), posted one step earlier"), (OUTER, "came over an outer hop, from (W-1, i), posted at the start of the round before"))):
        body.append(f'<rect x="{left}" y="{y + k * 22 - 11}" width="18" height="14" rx="3" fill="#ffffff" stroke="{colour}" stroke-width="3"/>')
        body.append(text(left + 28, y + k * 22, words, 12, "start"))
    return page(left + ranks * cell + 40, y + 40, body)


(HERE / "rings.svg").write_text(rings())
(HERE / "double_ring_schedule.svg").write_text(schedule())
