"""Blocks of a 4096x4096 layer: ggml's own quantizers beside niwaki, one thread each, bytes and errors compared.

Run from the root of the project with any Python that has numpy and gguf, beside an unpacked npm package:

    python -m venv venv && venv/bin/pip install numpy gguf
    npm pack @node-llama-cpp/linux-x64 && tar xzf node-llama-cpp-linux-x64-*.tgz
    venv/bin/python benches/peers/ggml_quantize.py --ggml package/bins/linux-x64/libggml-base.so [--runs 3]
    venv/bin/python benches/peers/ggml_quantize.py --ggml … --npz weights.npz     # errors on real matrices

ggml is called through ctypes (`ggml_quantize_chunk`, without an importance matrix); niwaki is the bench `blocks` with
--once. Runs take turns and the least time of each counts. The weights are Gaussian; `error` is the root of the squared
error over that of the weights, `weighted` the same with the weights that ggml has for the format: |w| and the root
mean square of each 32 for Q4_K, w^2 for Q6_K.
"""

import argparse
import ctypes
import datetime
import os
import pathlib
import subprocess
import time

import numpy
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

FORMATS = {"q8-0": Type.Q8_0, "q4-0": Type.Q4_0, "q4-1": Type.Q4_1, "q5-0": Type.Q5_0, "q4-k": Type.Q4_K, "q6-k": Type.Q6_K}
SEARCHED = ("q4-k", "q6-k")


def weighing(weights, name):
    """What an error of each weight counts."""
    if name == "q6-k":
        return weights**2
    runs = weights.reshape(-1, 32)
    return (numpy.sqrt((runs**2).mean(1, keepdims=True)) + abs(runs)).reshape(weights.shape)


def errors(blocks, weights, name):
    """Relative root mean square error, plain and weighted."""
    wide = weights.astype(numpy.float64)
    lost = (dequantize(blocks, FORMATS[name]).reshape(weights.shape) - wide) ** 2
    by = weighing(wide, name)
    return numpy.sqrt(lost.sum() / (wide**2).sum()), numpy.sqrt((by * lost).sum() / (by * wide**2).sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ggml", required=True, help="libggml-base.so")
    parser.add_argument("--runs", type=int, default=3, help="runs of each; the least time counts")
    parser.add_argument("--side", type=int, default=4096, help="rows and columns of the layer")
    parser.add_argument("--npz", help="take the matrices of this archive whose rows are multiples of 256")
    arguments = parser.parse_args()
    library = ctypes.CDLL(arguments.ggml)
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    folder = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "ggml-peer"
    folder.mkdir(parents=True, exist_ok=True)

    def theirs(weights, name):
        """Blocks and seconds."""
        elements, size = GGML_QUANT_SIZES[FORMATS[name]]
        blocks = numpy.zeros((weights.shape[0], weights.shape[1] // elements * size), numpy.uint8)
        start = time.perf_counter()
        library.ggml_quantize_chunk(FORMATS[name].value, weights.ctypes.data, blocks.ctypes.data, 0, *weights.shape, None)
        return blocks, time.perf_counter() - start

    def ours(rows):
        """Seconds by format, of a process of its own that also writes the blocks."""
        env = dict(os.environ, RAYON_NUM_THREADS="1", NIWAKI_PEER=str(folder.resolve()), NIWAKI_BENCH_ROWS=str(rows))
        command = ["cargo", "bench", "--features", "cli", "--bench", "blocks", "--", "--once"]
        output = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
        lines = [line.split() for line in output.splitlines() if line.startswith("seconds ")]
        return {name: float(seconds) for _, name, seconds in lines}

    if arguments.npz:
        archive = numpy.load(arguments.npz)
        layers = {name: archive[name] for name in archive.files}
        layers = {name: x for name, x in layers.items() if x.ndim == 2 and x.shape[1] % 256 == 0}
    else:
        random = numpy.random.default_rng(1)
        layers = {"gaussian": random.standard_normal((arguments.side, arguments.side)) * 0.02}
    print(f"{datetime.date.today()}, one thread, least of {arguments.runs}")
    for layer, weights in layers.items():
        weights = numpy.ascontiguousarray(weights, numpy.float32)
        weights.tofile(folder / "weights.f32")
        runs = [(ours(len(weights)), {name: theirs(weights, name) for name in FORMATS}) for _ in range(arguments.runs)]
        for name, kind in FORMATS.items():
            mine = min(run[0][name] for run in runs)
            other = min(run[1][name][1] for run in runs)
            blocks = numpy.fromfile(folder / f"{name}.blocks", numpy.uint8).reshape(len(weights), -1)
            line = f"{layer} {weights.shape} {name}: ggml {other:.4f} s, niwaki {mine:.4f} s, ratio {other / mine:.2f}"
            if name in SEARCHED:
                (a, b), (c, d) = errors(runs[0][1][name][0], weights, name), errors(blocks, weights, name)
                line += f"; error {a:.5f}, {c:.5f}; weighted {b:.5f}, {d:.5f}"
            else:
                same = numpy.array_equal(blocks, runs[0][1][name][0])
                line += f"; bytes {'equal' if same else 'DIFFER'}"
                line += ", to PyPI gguf's too" if numpy.array_equal(blocks, quantize(weights, kind)) else ", not to PyPI gguf's"
            print(line, flush=True)


if __name__ == "__main__":
    main()
