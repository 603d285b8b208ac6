#!/usr/bin/env python3
"""Judge GGUF files by PyPI gguf: its reader, its decoders, and its quantizers to the bit.

    python -m venv venv && venv/bin/pip install gguf numpy
    venv/bin/python tools/check_gguf.py FILE.gguf...
    venv/bin/python tools/check_gguf.py --decoded FILE.gguf DECODED.npz
    venv/bin/python tools/check_gguf.py --bits FILE.gguf WEIGHTS.npz

The first form reads each file and decodes every tensor to finite numbers. --decoded compares them with the arrays that
niwaki decoded (`niwaki compress m.npz -o decoded.npz --quantize gguf:q4_k`), which must be equal. --bits quantizes the
weights that a file was made from: Q8_0, Q4_0, Q4_1 and Q5_0 must have the same bytes, F16 the same numbers.

One line a file. Exits with 1 if any fails.
"""

import argparse
import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader
from gguf.quants import dequantize, quantize

PRESCRIBED = (Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.F16)


def tensors(path):
    """Type, bytes and decoded numbers of each tensor, by name."""
    found = {}
    for tensor in GGUFReader(path).tensors:
        shape = [int(axis) for axis in reversed(tensor.shape)]
        kind = tensor.tensor_type
        values = tensor.data if kind == Type.F64 else dequantize(tensor.data, kind)
        found[tensor.name] = kind, tensor.data, np.asarray(values).reshape(shape)
    return found


def read(path):
    """What to say of a file that can be read."""
    found, kinds = tensors(path), {}
    for name, (kind, _, values) in found.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds what is not finite")
        kinds[kind.name] = kinds.get(kind.name, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def decoded(path, archive):
    """Every number as niwaki decoded it."""
    arrays, found = np.load(archive), tensors(path)
    if sorted(arrays.files) != sorted(found):
        raise ValueError(f"names {sorted(found)} and {sorted(arrays.files)}")
    for name, (kind, _, values) in found.items():
        if not np.array_equal(values, arrays[name]):
            raise ValueError(f"{name} ({kind.name}) differs by {np.abs(values - arrays[name]).max()}")
    return f"{len(found)} tensors equal"


def bits(path, archive):
    """Every byte as gguf quantizes it."""
    arrays, counts = np.load(archive), {}
    for name, (kind, data, values) in tensors(path).items():
        if kind not in PRESCRIBED:
            continue
        weights = arrays[name].astype(np.float32)
        same = np.array_equal(values, weights.astype(np.float16)) if kind == Type.F16 else np.array_equal(
            np.asarray(data).ravel(), quantize(weights, kind).ravel()
        )
        if not same:
            raise ValueError(f"{name}: bytes of {kind.name} differ")
        counts[kind.name] = counts.get(kind.name, 0) + 1
    if not counts:
        raise ValueError("no tensor of a format that is prescribed to the bit")
    return ", ".join(f"{count} {kind} to the bit" for kind, count in sorted(counts.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE.gguf")
    for option in ("--decoded", "--bits"):
        parser.add_argument(option, nargs=2, action="append", default=[], metavar=("FILE.gguf", "ARCHIVE.npz"))
    arguments = parser.parse_args()
    checks = [(path, read, (path,)) for path in arguments.files]
    checks += [(pair[0], decoded, pair) for pair in arguments.decoded]
    checks += [(pair[0], bits, pair) for pair in arguments.bits]
    if not checks:
        parser.error("no file to judge")
    failures = 0
    for path, judge, given in checks:
        try:
            print(f"ok   {path}: {judge(*given)}", flush=True)
        except Exception as error:  # Whatever a judge throws is a verdict.
            failures += 1
            print(f"FAIL {path}: {error}", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
