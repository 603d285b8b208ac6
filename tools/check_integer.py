#!/usr/bin/env python3
"""Judge a quantized ONNX file by ONNX Runtime: does it fuse, and does it answer as the float file does?

    python -m venv venv && venv/bin/pip install onnx onnxruntime numpy
    venv/bin/python tools/check_integer.py float.onnx int8.onnx --inputs inputs.npz [--fused 5] [--cosine 0.999]

The checker with strict shape inference reads the file; the graph that ONNX Runtime makes of it must have at least
--fused nodes that compute in integers, and no QuantizeLinear but what --loose allows; on all samples of the inputs the
mean cosine to the float file's answers must be --cosine. Exits with 1 if one of these does not hold.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

INTEGER = ("QLinear", "QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits", "ConvInteger")


def session(path, optimized=None):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def kinds(path):
    """How many nodes of each operator ONNX Runtime's own graph has."""
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        session(path, optimized)
        return Counter(node.op_type for node in onnx.load(str(optimized)).graph.node)


def cosine(a, b):
    """The mean over samples of the cosine between rows."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plain", type=Path)
    parser.add_argument("integer", type=Path)
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--fused", type=int, default=1)
    parser.add_argument("--loose", type=int, default=1)
    parser.add_argument("--cosine", type=float, default=0.999)
    args = parser.parse_args()
    onnx.checker.check_model(str(args.integer), full_check=True)
    found = kinds(args.integer)
    fused = sum(count for kind, count in found.items() if kind.startswith(INTEGER))
    with np.load(args.inputs) as arrays:
        feeds = {name: arrays[name] for name in arrays.files}
    first, second = (session(path).run(None, feeds) for path in (args.plain, args.integer))
    near = [cosine(a, b) for a, b in zip(first, second)]
    print(f"{args.integer.name}: {fused} nodes in integers of {sum(found.values())} ({dict(found)}), cosine {near}")
    good = fused >= args.fused and found["QuantizeLinear"] <= args.loose and min(near) >= args.cosine
    if not good:
        print(f"wanted: {args.fused} fused, at most {args.loose} QuantizeLinear, cosine {args.cosine}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
