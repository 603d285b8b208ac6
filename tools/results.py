#!/usr/bin/env python3
"""Measure what pruning costs and gives, and write the tables of docs/results.md.

    python -m venv venv
    venv/bin/pip install numpy onnx onnxruntime pillow matplotlib font-roboto font-source-serif-pro
    cargo build --release --features cli
    venv/bin/python tools/results.py --niwaki target/release/niwaki --shared ../shared

--shared is a folder whose data/ holds mnist-cnn, mnist10k and ppocr-cls. Tables stand in docs/results.md between
`<!-- NAME -->` and `<!-- end -->`; what is between is replaced, the text around stays. Each table says the command,
the day and the versions. Nothing is chosen on test data: criterion and recovery are chosen on inputs that are
neither calibrated on nor tested on.

--quick measures two criteria and one sparsity and prints instead of writing. --only NAME measures one section;
--work DIR keeps models and inputs.
"""

import argparse
import datetime
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import check_onnx
import numpy as np
import onnx
import onnxruntime
import render_text
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parent.parent
CRITERIA = [
    "l0", "l1", "l2", "linf", "std-dev", "random",
    "max-activation", "std-dev-activations", "total-confidence", "wanda", "subset",
]
LEAST_SQUARES = ("least-squares",)
# Torch-Pruning 1.6, group magnitude, one shot, the same network and test images; with batch norms re-estimated.
TORCH_PRUNING = {0.3: (0.468, 0.783), 0.5: (0.195, 0.259)}
MNIST_TARGETS = {0.3: 0.973, 0.5: 0.955, 0.7: 0.87}
COSINE_TARGET = (0.3, 0.98)


@dataclass
class Net:
    """A file that was written, and what the tool said of it."""

    path: Path
    report: dict


class Tool:
    """The binary; each call is made once, and not again while `work` holds what the same binary wrote."""

    def __init__(self, binary, work):
        self.binary, self.work, self.made, self.failed = binary.resolve(), work, {}, []
        self.print = hashlib.sha256(self.binary.read_bytes()).hexdigest()
        told = subprocess.run([str(self.binary), "--version"], capture_output=True, text=True, check=True)
        self.version = told.stdout.strip()

    def compress(self, model, sparsity, criterion, recover=(), calibration=None, more=()):
        """The pruned network, or None if the tool refused, which `failed` keeps."""
        words = ["--importance", criterion, "--prune", f"channel={sparsity}", *more]
        for name in recover:
            words += ["--recover", name]
        return self.call(model, (*words, *(("--calibration", str(calibration)) if calibration else ())))

    def call(self, model, words):
        """The network that these words make, or None if the tool refused, which `failed` keeps."""
        key = (str(model), words)
        if key not in self.made:
            self.made[key] = self.run(*key)
        return self.made[key]

    def run(self, model, words):
        key = hashlib.sha256(f"{self.print} {model} {words}".encode()).hexdigest()[:12]
        out = self.work / f"{Path(model).stem}-{key}.onnx"
        told = f"{Path(model).stem} {' '.join(word for word in words if '/' not in word)}"
        report = out.with_suffix(".json")
        if not report.exists():
            start = time.perf_counter()
            command = [str(self.binary), "compress", model, "-o", str(out), "--json", "--quiet", *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            print(f"{time.perf_counter() - start:6.1f} s  {told}", file=sys.stderr, flush=True)
            if done.returncode != 0:
                self.failed.append((told, done.stderr.strip()))
                print(f"          {done.stderr.strip()}", file=sys.stderr)
                return None
            report.write_text(done.stdout)
        try:
            onnx.checker.check_model(str(out), full_check=True)
        except Exception as error:  # The checker's errors have no common base.
            self.failed.append((told, f"checker: {str(error).strip().splitlines()[0]}"))
            return None
        return Net(out, json.loads(report.read_text()))


def session(path):
    """ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def outputs(path, inputs):
    """The first output for all inputs, in batches of 100."""
    run = session(path)
    name = run.get_inputs()[0].name
    return np.concatenate([run.run(None, {name: inputs[i : i + 100]})[0] for i in range(0, len(inputs), 100)])


def milliseconds(paths, inputs, turns):
    """Median time of a batch of one for each file, all of them in turns."""
    runs = [(r, r.get_inputs()[0].name) for r in map(session, paths)]
    times = [[] for _ in runs]
    for turn in range(turns + 20):
        feed = inputs[turn % len(inputs)][None]
        for (run, name), own in zip(runs, times):
            start = time.perf_counter()
            run.run(None, {name: feed})
            own.append(time.perf_counter() - start)
    # The first turns warm up.
    return [statistics.median(own[20:]) * 1e3 for own in times]


def parameters(path):
    """Floating-point values in initializers and constants of rank 1 and more, other files included."""
    model, count = onnx.load(path), 0
    tensors = list(model.graph.initializer)
    for node in check_onnx.nodes(model.graph):
        tensors += [a.t for a in node.attribute if node.op_type == "Constant" and a.HasField("t")]
    for tensor in tensors:
        values = numpy_helper.to_array(tensor)
        count += values.size if values.ndim and np.issubdtype(values.dtype, np.floating) else 0
    return count


def table(head, rows):
    """A Markdown table; numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def percent(value):
    return "–" if value is None else f"{100 * value:.2f}"


def versions(tool, words):
    """The command, the day, and what was used."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "onnx", "numpy", "pillow"))
    info = Path("/proc/cpuinfo")
    wide = ", AVX-512" if info.exists() and "avx512f" in info.read_text() else ""
    machine = f"{os.cpu_count()} {platform.machine()} cores{wide}"
    return f"{datetime.date.today()}; {words}; {tool.version}, {packages}, Python {platform.python_version()}; {machine}."


def command(text):
    return f"```text\n{text}\n```"


def idx(path):
    """An IDX file of bytes."""
    raw = path.read_bytes()
    rank = raw[3]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(np.frombuffer(raw, ">u4", rank, 4))


def digits(folder, part):
    images = (idx(folder / f"{part}-images-idx3-ubyte")[:, None] / 255 - 0.1307) / 0.3081
    return images.astype(np.float32), idx(folder / f"{part}-labels-idx1-ubyte").astype(np.int64)


def accuracy(path, images, labels):
    return float((outputs(path, images).argmax(1) == labels).mean())


def mnist(tool, shared, quick):
    """Sections mnist, mnist-best."""
    model = shared / "data/mnist-cnn/model.onnx"
    train, test = digits(shared / "data/mnist10k", "train"), digits(shared / "data/mnist10k", "t10k")
    calibration = tool.work / "mnist-calibration.npz"
    np.savez(calibration, x=train[0][:1000])
    held = (train[0][1000:3000], train[1][1000:3000])
    sparsities, criteria = ([0.5], ["l2", "subset"]) if quick else ([0.3, 0.5, 0.7], CRITERIA)
    recoveries = [LEAST_SQUARES] if quick else [LEAST_SQUARES, ("mean-fold",), ("mean-fold", "least-squares")]
    scores, rows, chosen = {}, [], []
    for criterion in criteria:
        row = [criterion]
        for sparsity in sparsities:
            for recover in [(), *recoveries]:
                net = tool.compress(model, sparsity, criterion, recover, calibration)
                if net:
                    scores[sparsity, criterion, recover] = (accuracy(net.path, *held), accuracy(net.path, *test), net)
            for recover in [(), LEAST_SQUARES]:
                found = scores.get((sparsity, criterion, recover))
                row.append(percent(found and found[1]))
        rows.append(row)
    head = ["criterion"] + [f"{s} {what}" for s in sparsities for what in ("pruned", "recovered")]
    before = accuracy(model, *test)
    all_of_them = table(head, rows)

    paths = [model]
    for sparsity in sparsities:
        own = {key: found for key, found in scores.items() if key[0] == sparsity}
        if own:
            best = max(own, key=lambda key: own[key][0])
            chosen.append((best, own[best]))
            paths.append(own[best][2].path)
    times = milliseconds(paths, test[0][:100], 500 if quick else 4000)
    report = chosen and chosen[0][1][2].report
    rows = [["0", "–", "–", percent(accuracy(model, *held)), percent(before), "–", "–",
             *sizes(report, model, "before"), f"{times[0]:.3f}", "1"]]
    for ((sparsity, criterion, recover), (on_held, on_test, net)), ms in zip(chosen, times[1:]):
        target, peer = MNIST_TARGETS[sparsity], TORCH_PRUNING.get(sparsity)
        rows.append([
            sparsity, criterion, ", ".join(recover) or "none", percent(on_held), percent(on_test),
            f"{percent(target)} {'met' if on_test >= target else '**missed**'}",
            f"{percent(peer[0])} ({percent(peer[1])})" if peer else "–",
            *sizes(net.report, net.path), f"{ms:.3f}", f"{times[0] / ms:.2f}",
        ])
    head = ["sparsity", "criterion", "recovery", "held out %", "test %", "target %", "Torch-Pruning %",
            "parameters", "MMACs", "bytes", "ms", "times faster"]
    even = rounded(tool, model, calibration, [best for best, _ in chosen], test)
    line = ("niwaki compress mnist-cnn/model.onnx -o small.onnx --calibration mnist-calibration.npz \\\n"
            "    --importance CRITERION --prune channel=SPARSITY [--recover least-squares]")
    note = versions(tool, f"1,000 calibration images, accuracy in per cent on 2,000 test images, before {percent(before)}")
    return {
        "mnist": f"{command(line)}\n\n{note}\n\n{all_of_them}",
        "mnist-best": f"{versions(tool, 'ms are medians of a batch of one on one thread, in turns')}\n\n{table(head, rows)}",
        "mnist-rounded": f"{versions(tool, 'ms as above')}\n\n{even}",
    }


def rounded(tool, model, calibration, chosen, test):
    """The networks chosen, with numbers of channels that are multiples."""
    nets = []
    for sparsity, criterion, recover in chosen:
        for units in (1, 8, 16):
            more = ("--round-to", str(units))
            nets.append((sparsity, units, tool.compress(model, sparsity, criterion, recover, calibration, more)))
    nets = [net for net in nets if net[2]]
    times = milliseconds([model] + [net.path for *_, net in nets], test[0][:100], 2000)
    rows = [
        [sparsity, units, percent(accuracy(net.path, *test)), *sizes(net.report, net.path), f"{ms:.3f}",
         f"{times[0] / ms:.2f}"]
        for (sparsity, units, net), ms in zip(nets, times[1:])
    ]
    return table(["sparsity", "multiples of", "test %", "parameters", "MMACs", "bytes", "ms", "times faster"], rows)


def sizes(report, path, when="after"):
    """Cells: parameters, millions of multiplications, bytes."""
    macs = report and report.get("macs")
    return [f"{parameters(path):,}", f"{macs[when] / 1e6:.2f}" if macs else "–", f"{path.stat().st_size:,}"]


def cosine(a, b):
    """Mean over the samples."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean())


def ppocr(tool, shared, quick):
    """Sections ppocr-criteria, ppocr."""
    model = next((shared / "data/ppocr-cls").glob("*.onnx"))
    name = session(model).get_inputs()[0].name
    crops = render_text.make(tool.work / "crops", name)
    calibration = tool.work / "crops/calibration.npz"
    right = {key: outputs(model, crops[key][0]) for key in ("validation", "test")}
    measured = {}

    def judge(sparsity, criterion, recover, calibration=calibration, more=()):
        """(validation cosine, test cosine, agreement, accuracy, net)"""
        key = (sparsity, criterion, recover, calibration, more)
        if key not in measured:
            needs = calibration if recover or CRITERIA.index(criterion) > CRITERIA.index("random") else None
            net = tool.compress(model, sparsity, criterion, recover, needs, ("--input", f"{name}=1,3,48,192", *more))
            measured[key] = None
            if net:
                valid, test = (outputs(net.path, crops[part][0]) for part in ("validation", "test"))
                labels = test.argmax(1)
                measured[key] = (
                    cosine(valid, right["validation"]), cosine(test, right["test"]),
                    float((labels == right["test"].argmax(1)).mean()), float((labels == crops["test"][1]).mean()), net,
                )
        return measured[key]

    at, target = COSINE_TARGET
    criteria = ["l2", "subset"] if quick else CRITERIA
    recoveries = [LEAST_SQUARES] if quick else [LEAST_SQUARES, ("batch-norm",), ("mean-fold",)]
    rows = []
    for criterion in criteria:
        found = [judge(at, criterion, recover) for recover in [(), *recoveries]]
        rows.append([criterion] + [f"{f[1]:.4f}" if f else "–" for f in found])
    by_criterion = table(["criterion", "none"] + [", ".join(r) for r in recoveries], rows)

    ranked = sorted((k for k in measured if k[2] and measured[k]), key=lambda k: -measured[k][0])
    few = list(dict.fromkeys((c, r) for _, c, r, *_ in ranked))[: 1 if quick else 2]
    bare = sorted((k for k in measured if not k[2] and measured[k]), key=lambda k: -measured[k][0])
    few_bare = [c for _, c, *_ in bare][: 1 if quick else 3]
    best = []
    for sparsity in [at] if quick else [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]:
        plain = [(judge(sparsity, c, ()), c) for c in few_bare]
        given = [(judge(sparsity, c, r), c, r) for c, r in few]
        plain, given = [p for p in plain if p[0]], [g for g in given if g[0]]
        if plain and given:
            best.append((sparsity, max(plain, key=lambda p: p[0][0]), max(given, key=lambda g: g[0][0])))
    times = milliseconds([model] + [given[0][4].path for _, _, given in best], crops["test"][0][:100], 60 if quick else 600)
    before = float((right["test"].argmax(1) == crops["test"][1]).mean())
    report = best and best[0][2][0][4].report
    rows = [["0", "–", "1", "100.00", percent(before), "–", "1", "100.00", percent(before),
             *sizes(report, model, "before"), f"{times[0]:.2f}", "1"]]
    for (sparsity, (plain, criterion), (given, with_, recover)), ms in zip(best, times[1:]):
        rows.append([
            sparsity, criterion, f"{plain[1]:.4f}", percent(plain[2]), percent(plain[3]),
            f"{with_}: {', '.join(recover)}", f"{given[1]:.4f}", percent(given[2]), percent(given[3]),
            *sizes(given[4].report, given[4].path), f"{ms:.2f}", f"{times[0] / ms:.2f}",
        ])
    head = ["sparsity", "criterion alone", "cosine", "agree %", "right %", "criterion and recovery", "cosine",
            "agree %", "right %", "parameters", "MMACs", "bytes", "ms", "times faster"]
    line = (f"niwaki compress {model.name} -o small.onnx --input {name}=1,3,48,192 \\\n"
            "    --calibration crops/calibration.npz --importance CRITERION --prune channel=SPARSITY [--recover RECOVERY]")
    more = "" if quick else wider(tool, judge, at, few[0], name)
    reached = [given[0][1] for sparsity, _, given in best if sparsity == at]
    verdict = f"Cosine {reached[0]:.4f} at {at}, target {target}: {'met' if reached[0] >= target else '**missed**'}.\n\n" if reached else ""
    return {
        "ppocr-criteria": f"{command(line)}\n\n{versions(tool, f'mean cosine of the outputs on 300 test crops, sparsity {at}')}\n\n{by_criterion}",
        "ppocr": f"{verdict}{versions(tool, '200 calibration crops, 300 test crops, ms as above')}\n\n{table(head, rows)}",
        "ppocr-more": f"{versions(tool, f'sparsity {at}, {few[0][0]}, {few[0][1][0]}')}\n\n{more}",
    }


def wider(tool, judge, at, best, name):
    """More crops to calibrate on, and residual streams that keep their channels."""
    rows, keep = [], ("--keep", "conv1_weights", "--keep", "re:conv.*_linear_weights")
    for count in (200, 1000):
        path = tool.work / f"crops/calibration-{count}.npz"
        np.savez(path, **{name: render_text.draw(count, 0, 1, render_text.fonts())[0]})
        for streams, more in (("pruned", ()), ("kept", keep)):
            found = judge(at, *best, path, more)
            if found:
                rows.append([count, streams, f"{found[1]:.4f}", percent(found[2]), percent(found[3]),
                             *sizes(found[4].report, found[4].path)])
    head = ["crops", "residual streams", "cosine", "agree %", "right %", "parameters", "MMACs", "bytes"]
    return table(head, rows)


def stored(path):
    """Bytes of a file and of those that hold its data."""
    model, files = onnx.load(path, load_external_data=False), {path}
    for tensor in model.graph.initializer:
        files |= {path.parent / entry.value for entry in tensor.external_data if entry.key == "location"}
    return sum(file.stat().st_size for file in files)


def nets(tool, _shared, quick):
    """Section nets."""
    rows = []
    paths = sorted((ROOT / "tests/data/onnx").glob("*.onnx"))
    for path in paths[:5] if quick else paths:
        net = tool.compress(path, 0.3, "random")
        before = stored(path)
        if net is None:
            rows.append([path.stem, f"{before:,}", "–", "–", "–", "–", tool.failed[-1][1].replace("|", "/").replace("\n", " ")])
            continue
        after, macs = stored(net.path), net.report.get("macs")
        saved = f"{macs['before'] / macs['after']:.2f}" if macs and macs["after"] else "–"
        try:
            strangers = check_onnx.unknown(onnx.load(path, load_external_data=False))
            told = check_onnx.one(net.path, {}, 0, False)
            told = "loads and runs" if not strangers else "no runtime knows its operator"
        except Exception as error:  # ONNX Runtime's errors have no common base.
            told = str(error).strip().splitlines()[0]
            tool.failed.append((f"{path.stem} in ONNX Runtime", told))
            told = "**fails**: " + told.replace("|", "/")
        ratio = parameters(net.path) / parameters(path)
        rows.append([path.stem, f"{before:,}", f"{after:,}", f"{ratio:.3f}", saved, "passes", told])
    head = ["model", "bytes", "bytes pruned", "parameters left", "MACs before / after", "checker", "ONNX Runtime"]
    line = "niwaki compress tests/data/onnx/MODEL.onnx -o small.onnx --importance random --prune channel=0.3"
    return {"nets": f"{command(line)}\n\n{versions(tool, 'random weights, so only sizes mean anything')}\n\n{table(head, rows)}"}


# Words behind --quantize, BITS in place of bits, and whether they get the calibration inputs.
ROUNDINGS = [
    ("uniform:BITS:channel", False),
    ("uniform:BITS:channel,mse", False),
    ("uniform:BITS:channel,mse", True),
    ("uniform:BITS:channel,hqq", False),
    ("uniform:BITS:channel,affine", False),
    ("uniform:BITS:channel,affine,mse", True),
    ("uniform:BITS:channel,affine,hqq", False),
    ("uniform:BITS:channel,mse --correct-bias", True),
    ("uniform:BITS:channel,mse --equalize --correct-bias", True),
    ("uniform:BITS:channel,mse --awq --correct-bias", True),
    ("gptq:BITS:channel", True),
    ("gptq:BITS:channel,mse", True),
    ("gptq:BITS:channel,mse,act-order", True),
    ("gptq:BITS:channel,mse --correct-bias", True),
    ("gptq:BITS:channel,mse --equalize --correct-bias", True),
    ("gptq:BITS:channel,affine,mse --correct-bias", True),
    ("distill:BITS:channel", True),
    ("distill:BITS:channel --correct-bias", True),
    ("distill:BITS:channel --equalize --correct-bias", True),
    ("distill:BITS:channel:adversarial", True),
]
HALVES = [
    ("--prune unstructured=0.5,ends --importance wanda", True),
    ("--prune unstructured=0.5,ends --importance wanda --recover least-squares", True),
    ("--prune sparsegpt=0.5,ends", True),
    ("--prune sparsegpt=0.5,ends --quantize gptq:4:channel,mse --correct-bias", True),
    ("--quantize gptq:4:channel,mse,sparsity=0.5 --correct-bias", True),
    ("--quantize gptq:4:channel,mse,sparsity=0.5,polish=10 --correct-bias", True),
]


def rounding(tool, shared, quick):
    """Sections rounding, rounding-errors, halves."""
    digit_net = shared / "data/mnist-cnn/model.onnx"
    train, test = digits(shared / "data/mnist10k", "train"), digits(shared / "data/mnist10k", "t10k")
    digit_inputs = tool.work / "mnist-calibration.npz"
    np.savez(digit_inputs, x=train[0][:1000])
    text_net = next((shared / "data/ppocr-cls").glob("*.onnx"))
    name = session(text_net).get_inputs()[0].name
    crops = render_text.make(tool.work / "crops", name)
    text_inputs = tool.work / "crops/calibration.npz"
    nets = {
        "digits": (digit_net, ("--calibration", str(digit_inputs)), (), *test),
        "text": (text_net, ("--calibration", str(text_inputs)), ("--input", f"{name}=1,3,48,192"), *crops["test"]),
    }
    right = {net: outputs(model, inputs) for net, (model, _, _, inputs, _) in nets.items()}

    def judge(net, words, data):
        """(cosine, share right, cells of the report)"""
        model, calibration, more, inputs, labels = nets[net]
        made = tool.call(model, (*words.split(), *more, *(calibration if data else ())))
        if made is None:
            return "–", "–", ["–"] * 3
        found = outputs(made.path, inputs)
        return f"{cosine(found, right[net]):.4f}", percent(float((found.argmax(1) == labels).mean())), learned(made.report)

    columns = [("digits", 4), ("digits", 3), ("text", 4)]
    before = {net: percent(float((right[net].argmax(1) == labels).mean())) for net, (*_, labels) in nets.items()}
    rows = [["float", "–", *(cell for net, _ in columns for cell in ("1", before[net]))]]
    errors = []
    for words, data in ROUNDINGS[:2] if quick else ROUNDINGS:
        found = [judge(net, f"--quantize {words.replace('BITS', str(bits))}", data) for net, bits in columns]
        rows.append([f"`{words.replace('BITS', 'B')}`", "yes" if data else "no", *(c for f in found for c in f[:2])])
        if words.startswith(("gptq", "distill")):
            errors.append([f"`{words.replace('BITS', 'B')}`", *(cell for f in found for cell in f[2])])
    told = [f"{net} {bits} bits:" for net, bits in columns]
    head = ["words", "data", *(f"{name} {what}" for name in told for what in ("cosine", "right %"))]
    inner = ["words", *(f"{name} {what}" for name in told for what in ("error", "held out", "rows nearest"))]
    halves = [["nothing", "1", before["digits"], "1", before["text"]]]
    for words, data in HALVES[:1] if quick else HALVES:
        halves.append([f"`{words}`", *(cell for net in nets for cell in judge(net, words, data)[:2])])
    line = "niwaki compress MODEL -o small.onnx [--calibration INPUTS.npz] --quantize WORDS"
    note = versions(tool, "1,000 calibration images and 2,000 test images of digits; 200 calibration crops and 300 test crops of text")
    inputs = versions(tool, "the same inputs")
    return {
        "rounding": f"{command(line)}\n\n{note}\n\n{table(head, rows)}",
        "rounding-errors": f"{inputs}\n\n{table(inner, errors)}",
        "halves": f"{inputs}\n\n" + table(["words", "digits cosine", "digits right %", "text cosine", "text right %"], halves),
    }


def learned(report):
    """Cells: error of the weights' outputs and that on held-out samples, as shares of nearest rounding's; rows that
    keep nearest rounding."""
    found = [layer["stored"]["learned"] for layer in report["layers"] if layer["stored"] and layer["stored"]["learned"]]
    if not found:
        return ["–"] * 3

    def share(pairs):
        return f"{sum(p['error'] for p in pairs) / sum(p['nearest'] for p in pairs):.2f}" if pairs else "–"

    held_out = share([f["held_out"] for f in found if f["held_out"]])
    return [share(found), held_out, f"{sum(f['rows_nearest'] for f in found)} of {sum(f['rows'] for f in found)}"]


def replace(text, name, body):
    """The text with the block of this name replaced."""
    mark, end = f"<!-- {name} -->", "<!-- end -->"
    start = text.find(mark)
    stop = text.find(end, start)
    if start < 0 or stop < 0:
        raise SystemExit(f"the document has no block {mark} … {end}")
    return f"{text[: start + len(mark)]}\n\n{body}\n\n{text[stop:]}"


SECTIONS = {"mnist": mnist, "ppocr": ppocr, "rounding": rounding, "nets": nets}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--niwaki", type=Path, required=True, metavar="BIN")
    parser.add_argument("--shared", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results.md")
    parser.add_argument("--only", choices=SECTIONS, action="append")
    parser.add_argument("--work", type=Path, metavar="DIR")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        tool = Tool(args.niwaki, work)
        for name in args.only or SECTIONS:
            for mark, body in SECTIONS[name](tool, args.shared, args.quick).items():
                if args.quick:
                    print(f"## {mark}\n\n{body}\n")
                else:
                    args.out.write_text(replace(args.out.read_text(), mark, body))
        good = sum(net is not None for net in tool.made.values())
        print(f"{good} files written, all pass the checker; {len(tool.failed)} failures", file=sys.stderr)
        for told, error in tool.failed:
            print(f"FAILED {told}: {error}", file=sys.stderr)
    return 1 if tool.failed else 0


if __name__ == "__main__":
    sys.exit(main())
