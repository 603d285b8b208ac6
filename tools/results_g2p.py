#!/usr/bin/env python3
"""Measure what fewer bits and fewer weights cost the g2p network, and write the table of docs/results.md.

    cargo build --release --example g2p
    venv/bin/python tools/results_g2p.py --shared ../shared

Needs numpy. --shared is a folder with data/g2p and tools/score_g2p.py, which scores decoded weights on 2,000 test words
(phoneme error rate); the methods see the 2,000 calibration words, without their phonemes. --trained NAME=FILE adds
a row for weights that were trained elsewhere (the example of whole-network distillation); repeatable. --print does not
write.
"""

import argparse
import datetime
import os
import platform
import re
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = re.compile(r"(<!-- g2p -->\n).*?(<!-- end -->)", re.S)
ROUNDINGS = [
    ("nearest", "nearest", None),
    ("nearest, range by MSE", "mse", None),
    ("GPTQ, range by MSE", "gptq", {4: 10.7, 3: 14.9}),
    ("GPTQ, ranges found by the sweep, polished", "gptq-search", {4: 10.7, 3: 14.9}),
    ("layer-wise distillation", "distill", {4: 10.3, 3: 13.0}),
    ("layer-wise distillation, adversarial", "adversarial", {4: 10.3, 3: 13.0}),
]
HALF = ["--sparsity", "0.5"]
PRUNED = [
    ("Wanda per row, least squares", [*HALF, "--pruner", "unstructured"], 12.8),
    ("SparseGPT", [*HALF, "--pruner", "sparsegpt"], 12.8),
    ("2 of 4 by Wanda, least squares", [*HALF, "--pruner", "2:4"], None),
    ("mask and 4-bit codes in one sweep", [*HALF, "--pruner", "joint", "--bits", "4", "--rounding", "gptq"], 14.0),
    ("Wanda, least squares, then GPTQ at 4 bits", [*HALF, "--pruner", "unstructured", "--bits", "4", "--rounding", "gptq"], 14.0),
    ("Wanda, least squares, then distillation at 4 bits", [*HALF, "--pruner", "unstructured", "--bits", "4", "--rounding", "distill"], 14.0),
]


class Bench:
    """Runs the example and scores what it wrote."""

    def __init__(self, shared, work):
        self.shared, self.work = shared, work
        self.example = ROOT / "target" / "release" / "examples" / "g2p"

    def score(self, weights):
        scorer = self.shared / "tools" / "score_g2p.py"
        told = subprocess.run(["python3", scorer, weights], capture_output=True, text=True, check=True).stdout
        return float(re.search(r"PER ([\d.]+)%", told).group(1))

    def run(self, *options):
        """Phoneme error rate, bytes and seconds."""
        out = self.work / "out.npz"
        start = time.perf_counter()
        command = [self.example, self.shared / "data" / "g2p", out, *options]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        seconds = time.perf_counter() - start
        return self.score(out), int(re.search(r"not 0, (\d+) bytes", told).group(1)), seconds


def cell(per, target):
    return f"{per:.2f}" if target is None else f"{per:.2f} (≤ {target})"


def table(bench, trained):
    head = ["method", "8 bits", "4 bits", "3 bits", "bytes at 4 bits", "seconds at 4 bits"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for name, rounding, targets in ROUNDINGS:
        found = {bits: bench.run("--bits", str(bits), "--rounding", rounding) for bits in (8, 4, 3)}
        cells = [cell(found[bits][0], (targets or {}).get(bits)) for bits in (8, 4, 3)]
        lines.append(f"| {name} | {' | '.join(cells)} | {found[4][1]:,} | {found[4][2]:.1f} |")
    lines += ["", "Half of the weights of the five matrices pruned, embeddings whole:", ""]
    lines += ["| method | PER | bytes | seconds |", "|---|---:|---:|---:|"]
    for name, options, target in PRUNED:
        per, size, seconds = bench.run(*options)
        lines.append(f"| {name} | {cell(per, target)} | {size:,} | {seconds:.1f} |")
    if trained:
        lines += ["", "The whole network trained against the original's answers:", "", "| | PER |", "|---|---:|"]
        for name, path, target in trained:
            lines.append(f"| {name} | {cell(bench.score(path), target)} |")
    return "\n".join(lines)


def named(text):
    name, path = text.rsplit("=", 1)
    name, _, target = name.partition("<=")
    return name.strip(), Path(path), float(target) if target else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--trained", type=named, action="append", default=[], metavar="NAME[<=TARGET]=FILE")
    parser.add_argument("--print", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        text = table(Bench(given.shared.resolve(), Path(work)), given.trained)
    day, cores = datetime.date.today().isoformat(), os.cpu_count()
    head = (
        "```text\ncargo run --release --example g2p -- ../shared/data/g2p out.npz [--sparsity 0.5] [--pruner P] "
        "[--bits B] [--rounding R]\n```\n\n"
        f"{day}; phoneme error rate in per cent on 2,000 test words, before 9.40; in brackets what was to be reached; "
        f"niwaki 0.1.0; {cores} {platform.machine()} cores.\n\n"
    )
    body = f"\n{head}{text}\n\n"
    if given.print:
        print(body)
        return
    page = ROOT / "docs" / "results.md"
    page.write_text(MARK.sub(lambda m: m.group(1) + body + m.group(2), page.read_text()))


if __name__ == "__main__":
    main()
