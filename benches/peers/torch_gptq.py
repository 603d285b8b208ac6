"""GPTQ of a 4096x4096 layer to int4, group 128, from its Gram matrix: a torch CPU implementation beside niwaki.

Run from the root of the project with any Python that has torch:

    python -m venv venv && venv/bin/pip install torch numpy
    venv/bin/python benches/peers/torch_gptq.py [--runs 3] [--threads 1]

The torch side is written for this comparison, as the paper has it: f32, damping 0.01, the upper Cholesky factor of the
inverse, blocks of 128 columns whose errors are handed on by one product of matrices, symmetric codes whose scale a
group gets from its weights when its turn comes. Both start from the same weights and the same Gram matrix, which the
bench `gptq` writes to a file; runs take turns, the medians are compared, and so are the decoded weights. Beside the
time of the clock stands that of the processor, summed over threads, which other work on the machine changes less.
"""

import argparse
import datetime
import os
import pathlib
import statistics
import subprocess
import time

import numpy
import torch

SIDE, GROUP, BLOCK, DAMP, LEVELS = 4096, 128, 128, 0.01, 7


def gptq(weights, gram):
    """Decoded weights of symmetric int4 groups of 128."""
    w = weights.clone()
    h = gram.clone()
    h.diagonal().add_(DAMP * h.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    u = torch.linalg.cholesky(inverse, upper=True)
    q = torch.zeros_like(w)
    for start in range(0, w.shape[1], BLOCK):
        stop = min(start + BLOCK, w.shape[1])
        part, errors, own = w[:, start:stop].clone(), torch.zeros(w.shape[0], stop - start), u[start:stop, start:stop]
        for j in range(stop - start):
            if (start + j) % GROUP == 0:
                scale = part[:, j : j + GROUP].abs().amax(1) / LEVELS
            rounded = torch.clamp(torch.round(part[:, j] / scale), -LEVELS, LEVELS) * scale
            error = (part[:, j] - rounded) / own[j, j]
            part[:, j:] -= error[:, None] * own[j, j:][None]
            q[:, start + j], errors[:, j] = rounded, error
        w[:, stop:] -= errors @ u[start:stop, stop:]
    return q


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs of each; medians are compared")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of both")
    parser.add_argument("--side", type=int, default=SIDE, help="rows and columns of the layer")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "gptq-peer"
    target.mkdir(parents=True, exist_ok=True)
    env = dict(os.environ, RAYON_NUM_THREADS=str(arguments.threads), NIWAKI_PEER=str(target.resolve()))
    env["NIWAKI_BENCH_ROWS"] = str(arguments.side)

    def ours():
        """Seconds of one run in a process of its own, which also writes what it started from and what it made."""
        command = ["cargo", "bench", "--features", "cli", "--bench", "gptq", "--", "--once"]
        output = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
        words = dict(line.split(" ", 1) for line in output.splitlines() if line.startswith(("seconds ", "processor ")))
        return float(words["seconds"]), float(words["processor"])

    def read(name):
        return torch.from_numpy(numpy.fromfile(target / name, dtype="<f4").reshape(arguments.side, arguments.side))

    ours()  # builds
    weights, gram = read("weights.f32"), read("gram.f32")
    gptq(weights[:256].contiguous(), gram)
    times = []
    for _ in range(arguments.runs):
        start, busy = time.perf_counter(), time.process_time()
        theirs = gptq(weights, gram)
        times.append((time.perf_counter() - start, time.process_time() - busy, *ours()))
    mine = read("decoded.f32")
    clock, busy, niwaki_clock, niwaki_busy = (statistics.median(column) for column in zip(*times))
    h = gram.double()

    def cost(decoded):
        errors = (weights - decoded)[::16].double()
        return float(((errors @ h) * errors).sum())

    same = float(((theirs - mine).abs() <= 1e-4 * theirs.abs().amax()).double().mean())
    print(f"{datetime.date.today()}, torch {torch.__version__}, {arguments.threads} threads, {arguments.side} square")
    print(f"torch   {clock:8.3f} s, {busy:8.3f} s of processor   error {cost(theirs):.6e}")
    print(f"niwaki  {niwaki_clock:8.3f} s, {niwaki_busy:8.3f} s of processor   error {cost(mine):.6e}")
    print(f"ratio   {clock / niwaki_clock:8.2f}, {busy / niwaki_busy:.2f} of processor; same weights {100 * same:.2f} %")


if __name__ == "__main__":
    main()
