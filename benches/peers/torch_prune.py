"""Half of a 4096x4096 layer's weights pruned by magnitude: torch.nn.utils.prune beside niwaki.

Run from the root of the project with any Python that has torch:

    python -m venv venv && venv/bin/pip install torch numpy
    venv/bin/python benches/peers/torch_prune.py [--runs 5]

Both use all cores. Both start from a layer in memory and end with the smaller half of its weights at zero; what
makes the layer is not timed. torch runs in this process, niwaki through `cargo bench`; runs take turns, and the
medians are compared.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import time

import torch
from torch.nn.utils import prune

SIDE = 4096


def peer():
    """Seconds of one call of l1_unstructured on a fresh layer."""
    layer = torch.nn.Linear(SIDE, SIDE, bias=False)
    torch.nn.init.normal_(layer.weight, std=0.02)
    start = time.perf_counter()
    prune.l1_unstructured(layer, "weight", amount=0.5)
    spent = time.perf_counter() - start
    assert int((layer.weight == 0).sum()) == SIDE * SIDE // 2
    return spent


def ours():
    """Seconds of one run of the bench `prune`, its median."""
    filter = f"prune/global half/{SIDE}x{SIDE}"
    command = ["cargo", "bench", "--bench", "prune", "--", filter]
    env = dict(os.environ, NIWAKI_BENCH_ROWS=str(SIDE))
    subprocess.run(command, env=env, check=True, capture_output=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    estimates = json.loads((target / "criterion" / filter / "new" / "estimates.json").read_text())
    return estimates["median"]["point_estimate"] * 1e-9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each; medians are compared")
    runs = parser.parse_args().runs
    ours()  # builds
    peer()
    times = [(peer(), ours()) for _ in range(runs)]
    torch_seconds, niwaki_seconds = (statistics.median(column) for column in zip(*times))
    print(f"{datetime.date.today()}, torch {torch.__version__}, {torch.get_num_threads()} threads, {SIDE}x{SIDE}, half")
    print(f"torch.nn.utils.prune.l1_unstructured  {torch_seconds:8.4f} s")
    print(f"niwaki                                {niwaki_seconds:8.4f} s")
    print(f"ratio                                 {torch_seconds / niwaki_seconds:8.1f}")


if __name__ == "__main__":
    main()
