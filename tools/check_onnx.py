#!/usr/bin/env python3
"""Judge ONNX files: the checker with strict shape inference, then a run in ONNX Runtime.

    python -m venv venv && venv/bin/pip install onnx onnxruntime numpy
    venv/bin/python tools/check_onnx.py DIR_OR_FILES...
    venv/bin/python tools/check_onnx.py --pair original.onnx pruned.onnx [--tolerance 1e-4]

Inputs are random, from a seed. A dynamic first axis, or one named like a batch, is 2 long, any other 8; --dims
NAME=VALUE says otherwise. Whole numbers that pick rows of a weight are drawn below its number of rows, others below 8.
With --pair both files get the same inputs, and the largest difference of each output, max|a-b| / max|a|, is printed.
Either way --plain turns ONNX Runtime's graph optimization off.

A file with an operator that ONNX Runtime does not know is checked and not run, which its line says; in a pair it fails.
One line a file. Exits with 1 if any file fails, or a pair differs by more than the tolerance.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper

# Domains whose operators ONNX Runtime brings along.
BUILT_IN = {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training", "com.microsoft", "com.ms.internal.nhwc"}


def nodes(graph):
    """The nodes of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else attribute.graphs):
                yield from nodes(inner)


def unknown(model):
    """Operators that neither ONNX Runtime nor a function of the file defines."""
    known = {(function.domain, function.name) for function in model.functions}
    kinds = {(node.domain, node.op_type) for node in nodes(model.graph)}
    return sorted(f"{domain}.{kind}" for domain, kind in kinds - known if domain not in BUILT_IN)


def rows(model, name):
    """How many rows the smallest weight has that the input `name` picks from, None if it picks from none."""
    sizes = {weight.name: weight.dims[0] for weight in model.graph.initializer if weight.dims}
    aliases, found = {name}, []
    for node in model.graph.node:
        first = node.input[0] if node.input else None
        if node.op_type in ("Cast", "Identity", "DequantizeLinear"):
            if first in aliases:
                aliases.add(node.output[0])
            if first in sizes:
                sizes[node.output[0]] = sizes[first]
        elif node.op_type == "Constant" and node.attribute[0].name == "value" and node.attribute[0].t.dims:
            sizes[node.output[0]] = node.attribute[0].t.dims[0]
        elif node.op_type == "Gather" and node.input[1] in aliases and first in sizes:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            found += [sizes[first]] if axis == 0 else []
    return min(found, default=None)


def draw(model, dims, seed):
    """Random values for every input that is no initializer."""
    random, feeds = np.random.default_rng(seed), {}
    stored = {weight.name for weight in model.graph.initializer}
    for value in model.graph.input:
        if value.name in stored:
            continue
        kind, shape = value.type.tensor_type, []
        for axis, dim in enumerate(kind.shape.dim):
            if dim.HasField("dim_value"):
                shape.append(dim.dim_value)
            else:
                batch = axis == 0 or "batch" in dim.dim_param.lower()
                shape.append(dims.get(dim.dim_param, 2 if batch else 8))
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if dtype == np.bool_:
            feeds[value.name] = random.integers(0, 2, shape).astype(dtype)
        elif np.issubdtype(dtype, np.integer):
            feeds[value.name] = random.integers(0, rows(model, value.name) or 8, shape).astype(dtype)
        else:
            feeds[value.name] = random.standard_normal(shape).astype(dtype)
    return feeds


def check(path):
    """The model after the checker and strict shape inference; data in other files is read by path."""
    onnx.checker.check_model(str(path), full_check=True)
    return onnx.load(path, load_external_data=False)


def run(path, feeds, plain):
    """Output names and values of ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds)))


def one(path, dims, seed, plain):
    """What to print of a good file."""
    model = check(path)
    strangers = unknown(model)
    if strangers:
        return f"checked, not run: no body for {', '.join(strangers)}"
    outputs = run(path, draw(model, dims, seed), plain)
    for name, values in outputs.items():
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise ValueError(f"output {name} is not finite")
    largest = {name: np.abs(values).max(initial=0) for name, values in outputs.items()}
    return ", ".join(f"{name} {list(outputs[name].shape)} max {most:.3g}" for name, most in largest.items())


def difference(a, b):
    """max|a-b| / max|a|; two that are zero all over agree."""
    if a.shape != b.shape:
        raise ValueError(f"shapes {list(a.shape)} and {list(b.shape)}")
    a, b = a.astype(np.float64), b.astype(np.float64)
    most, largest = np.abs(a - b).max(initial=0), np.abs(a).max(initial=0)
    return most / largest if largest > 0 else most


def pair(first, second, dims, seed, tolerance, plain):
    """Print the difference of each output; whether all are within the tolerance."""
    model = check(first)
    check(second)
    feeds, good = draw(model, dims, seed), True
    one, two = run(first, feeds, plain), run(second, feeds, plain)
    if one.keys() != two.keys():
        raise ValueError(f"outputs {sorted(one)} and {sorted(two)}")
    for name in one:
        apart = difference(one[name], two[name])
        # False for a difference that is no number, too.
        within = bool(apart <= tolerance)
        good &= within
        print(f"{'ok  ' if within else 'FAIL'} {first} {second}: {name} {list(one[name].shape)} differs by {apart:.3g}")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, metavar="DIR_OR_FILE")
    repeated = {"nargs": 2, "action": "append", "default": []}
    parser.add_argument("--pair", type=Path, metavar=("A", "B"), help="compare; may be repeated", **repeated)
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of --pair, 1e-4 by default")
    dims_help = "length of a dynamic axis; may be repeated"
    parser.add_argument("--dims", action="append", default=[], metavar="NAME=VALUE", help=dims_help)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="run without ONNX Runtime's graph optimization")
    arguments = parser.parse_args()
    if not arguments.paths and not arguments.pair:
        parser.error("no file to judge")
    try:
        dims = {name: int(value) for name, value in (item.split("=") for item in arguments.dims)}
    except ValueError:
        parser.error("--dims takes NAME=VALUE, whole numbers")
    onnxruntime.set_default_logger_severity(3)
    files = []
    for path in arguments.paths:
        files += sorted(path.glob("*.onnx")) if path.is_dir() else [path]
        if path.is_dir() and not any(path.glob("*.onnx")):
            parser.error(f"{path}: no .onnx file")
    failures = 0
    for path in files:
        try:
            print(f"ok   {path}: {one(path, dims, arguments.seed, arguments.plain)}", flush=True)
        except Exception as error:  # Whatever a judge throws is a verdict.
            failures += 1
            print(f"FAIL {path}: {error}", flush=True)
    for a, b in arguments.pair:
        try:
            failures += not pair(a, b, dims, arguments.seed, arguments.tolerance, arguments.plain)
        except Exception as error:
            failures += 1
            print(f"FAIL {a} {b}: {error}", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
