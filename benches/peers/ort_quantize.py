#!/usr/bin/env python3
"""int8 QDQ of whole models: niwaki's `--quantize qdq:8` and ONNX Runtime's `quantize_static`, side by side.

    python -m venv venv
    venv/bin/pip install numpy onnx onnxruntime pillow matplotlib font-roboto font-source-serif-pro
    cargo build --release --features cli
    venv/bin/python benches/peers/ort_quantize.py --niwaki target/release/niwaki --shared ../shared

--shared is a folder whose data/ holds mnist-cnn, mnist10k and ppocr-cls. Both get the same calibration inputs (1,000
training digits; 200 crops of rendered text) and are judged by ONNX Runtime on inputs that neither saw: accuracy, mean
cosine to the float model's answers, bytes, and milliseconds of a batch of one on one thread, all files in turns. Of the
peer every setting of the grid below is tried, each after `quant_pre_process`; the table marks the one with the best
cosine. Seconds are those of the whole process for niwaki, and of reading, pre-processing, calibrating, quantizing and
saving for the peer, within a process that has loaded it; the least of --runs. --threads says how many both may use.
"""

import argparse
import contextlib
import io
import itertools
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tools"))
import render_text
import results

METHODS = {"min-max": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy, "percentile": CalibrationMethod.Percentile}
# Weights: their type, and whether they have 7 bits.
WEIGHTS = {"i8": (QuantType.QInt8, False), "i8 of 7 bits": (QuantType.QInt8, True), "u8": (QuantType.QUInt8, False)}
OURS = ["qdq:8", "qdq:8,mse", "qdq:8,percentile=99.99", "qdq:8,entropy", "qdq:7,mse,signed"]


class Reader(CalibrationDataReader):
    def __init__(self, name, array):
        self.samples = iter({name: array[k : k + 1]} for k in range(len(array)))

    def get_next(self):
        return next(self.samples, None)


def peer(model, name, array, method, weights, per_channel, output):
    """Seconds that the peer takes from file to file."""
    start = time.perf_counter()
    logging.disable(logging.WARNING)
    ready = output.with_suffix(".ready.onnx")
    quant_pre_process(str(model), str(ready), skip_symbolic_shape=True)
    with contextlib.redirect_stdout(io.StringIO()):
        quantize_static(
            str(ready), str(output), Reader(name, array), quant_format=QuantFormat.QDQ, per_channel=per_channel,
            activation_type=QuantType.QUInt8, weight_type=WEIGHTS[weights][0], reduce_range=WEIGHTS[weights][1],
            calibrate_method=METHODS[method],
        )
    return time.perf_counter() - start


def ours(tool, model, calibration, spelling, shape, output, threads):
    """Seconds of the whole process."""
    command = [str(tool), "compress", str(model), "-o", str(output), "--calibration", str(calibration),
               "--quantize", spelling, "--input", shape, "--quiet", "--threads", str(threads)]
    start = time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, "RTEN_NUM_THREADS": str(threads)})
    return time.perf_counter() - start


def integer_nodes(path):
    """Nodes of the graph that ONNX Runtime makes of it which compute in integers, and all."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        made = onnx.load(options.optimized_model_filepath)
    kinds = Counter(node.op_type for node in made.graph.node)
    return sum(n for kind, n in kinds.items() if kind.startswith("QLinear") or kind in ("QGemm", "MatMulIntegerToFloat")), sum(kinds.values())


def measure(net, model, calibration, name, array, shape, test, labels, args, work):
    right = results.outputs(model, test)
    rows, paths = [["float", "", "", "", ""]], [model]
    for spelling in OURS:
        path = work / f"{net}-{spelling.replace(':', '-').replace(',', '-')}.onnx"
        seconds = min(ours(args.niwaki, model, calibration, spelling, shape, path, args.threads) for _ in range(args.runs))
        rows.append([f"niwaki {spelling}", seconds])
        paths.append(path)
    for method, kind, per_channel in itertools.product(METHODS, WEIGHTS, (True, False)):
        path = work / f"{net}-{method}-{kind.replace(' ', '-')}-{per_channel}.onnx"
        said = f"quantize_static {method}, weights {kind}{', per channel' if per_channel else ''}"
        try:
            seconds = min(peer(model, name, array, method, kind, per_channel, path) for _ in range(args.runs))
        except Exception as error:  # The peer's own failures are a row too.
            print(f"| {said} | failed: {str(error).splitlines()[0]} |")
            continue
        rows.append([said, seconds])
        paths.append(path)
    times = results.milliseconds(paths, test[:100], args.turns)
    print("| | cosine | right % | bytes | ms | integer nodes of all | seconds |\n|---|--:|--:|--:|--:|--:|--:|")
    best, first = None, None
    for row, path, ms in zip(rows, paths, times):
        found = results.outputs(path, test)
        near, share = results.cosine(found, right), float((found.argmax(1) == labels).mean())
        whole = "{} of {}".format(*integer_nodes(path))
        seconds = f"{row[1]:.2f}" if row[1] else "–"
        print(f"| {row[0]} | {near:.5f} | {100 * share:.2f} | {path.stat().st_size:,} | {ms:.3f} | {whole} | {seconds} |")
        if row[0] == f"niwaki {OURS[1]}":
            first = row[1]
        if row[0].startswith("quantize_static") and (best is None or near > best[0]):
            best = (near, row[0], row[1])
    if best:
        print(f"\nbest of the peer: {best[1]}; niwaki {OURS[1]} is {best[2] / first:.1f} times as fast, {args.threads} threads\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--niwaki", type=Path, required=True)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--work", type=Path)
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        # The peer has no word for threads of its calibration.
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: args.threads]))
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        data = args.shared / "data"
        images, _ = results.digits(data / "mnist10k", "train")
        test, labels = results.digits(data / "mnist10k", "t10k")
        np.savez(work / "digits.npz", x=images[:1000])
        print("mnist-cnn\n")
        measure("mnist", data / "mnist-cnn/model.onnx", work / "digits.npz", "x", images[:1000], "x=1,1,28,28", test, labels, args, work)
        crops = render_text.make(work / "crops", "x")
        model = next((data / "ppocr-cls").glob("*.onnx"))
        print("ppocr-cls\n")
        measure("ppocr", model, work / "crops/calibration.npz", "x", crops["calibration"][0], "x=1,3,48,192", *crops["test"], args, work)


if __name__ == "__main__":
    main()
