"""Half the channels of ResNet-18 and ResNet-50 pruned in one shot: Torch-Pruning, and niwaki beside it.

Run from the root of the project with any Python that has torch, torch-pruning, onnx and onnxscript:

    python -m venv venv && venv/bin/pip install torch torch-pruning onnx onnxscript numpy
    venv/bin/python benches/peers/torch_pruning_resnet.py [--runs 5] [--niwaki [BINARY]]

Without --niwaki it prints what Torch-Pruning does to the networks of tools/onnx_nets.py at full width, random
weights: parameters and multiply-accumulates before and after, each group of layers that shrink together, and the
medians of the time for reading a checkpoint, tracing the graph, pruning, and writing. With it, `niwaki compress`
reads, plans, prunes and writes the same network as an ONNX file, a whole process each time; runs take turns. The
peer's time leaves out the start of Python and its imports. Two ratios: to the peer that writes with torch.save, and to
the peer that exports to ONNX, as niwaki writes.
"""

import argparse
import contextlib
import datetime
import io
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from importlib import metadata
from pathlib import Path

import onnx
import torch
import torch_pruning

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import export_onnx
import onnx_nets

NETS = {"resnet18": onnx_nets.resnet18, "resnet50": onnx_nets.resnet50}
STAGES = ("read", "trace", "prune", "save", "export")


def pruner_of(net, image):
    """Group magnitude, every group to half, the classes kept; traces the graph."""
    return torch_pruning.pruner.BasePruner(
        net,
        image,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=False,
        pruning_ratio=0.5,
        ignored_layers=[net.fc],
    )


def peer(checkpoint, folder, image):
    """Seconds of each of the stages, and the pruned network."""
    marks = [time.perf_counter()]
    net = torch.load(checkpoint, weights_only=False)
    marks.append(time.perf_counter())
    pruner = pruner_of(net, image)
    marks.append(time.perf_counter())
    pruner.step()
    marks.append(time.perf_counter())
    torch.save(net, folder / "peer.pt")
    marks.append(time.perf_counter())
    export(net, image, folder / "peer.onnx")
    marks.append(time.perf_counter())
    return [after - before for before, after in zip(marks, marks[1:])], net


def export(net, image, path):
    """torch's faster export to ONNX, batch norms kept."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (image,), path, dynamo=False, training=torch.onnx.TrainingMode.PRESERVE)


def niwaki(binary, model, out):
    """Seconds of one process that reads, plans, prunes and writes."""
    command = [binary, "compress", model, "-o", out, "--importance", "l2", "--prune", "channel=0.5"]
    start = time.perf_counter()
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    spent = time.perf_counter() - start
    if done.returncode != 0:
        raise SystemExit(f"{binary} ended with {done.returncode}:\n{done.stderr}")
    return spent


def sizes(net, image):
    macs, parameters = torch_pruning.utils.count_ops_and_params(net, image)
    return f"{parameters / 1e6:.2f} M parameters, {macs / 1e9:.2f} GMAC"


def groups(net, image):
    """Lines on the groups that `BasePruner` prunes, in its order: first layer, members, channels before and after.

    Members are counted as Torch-Pruning counts them: a layer's output, a layer's input, a batch norm, an addition or
    an activation is one each.
    """
    names = {module: name for name, module in net.named_modules()}
    lines = []
    for group in pruner_of(net, image).step(interactive=True):
        root, members = group[0].dep.target.module, len(group)
        before = root.out_channels
        targets = {item.dep.target.module for item in group}
        layers = [names[module] for module in names if module in targets and hasattr(module, "weight")]
        layers = [name for name in layers if not isinstance(net.get_submodule(name), torch.nn.BatchNorm2d)]
        group.prune()
        line = f"  {names[root]:20} {members:3} members, {before:4} -> {root.out_channels:4}"
        lines.append(f"{line}, {len(layers)} layers: {' '.join(layers)}")
    return lines


def parameters_of(path):
    """Parameters in an ONNX file, statistics of batch norms not counted."""
    model = onnx.load(path)
    moving = {name for node in model.graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5]}
    kept = [weight for weight in model.graph.initializer if weight.name not in moving and weight.data_type == 1]
    return sum(onnx.numpy_helper.to_array(weight).size for weight in kept)


def compare(name, arguments, folder, image):
    torch.manual_seed(18)
    # Batch norms as they come would all be the same, and the export would store them once for many layers.
    net = export_onnx.settle(NETS[name](), (image,))
    print(f"\n{name}: {sizes(net, image)}")
    checkpoint, model, small = (folder / f"{name}{end}" for end in (".pt", ".onnx", "-pruned.onnx"))
    torch.save(net, checkpoint)
    export(net, image, model)
    peers, ours = [], []
    for run in range(arguments.runs + 1):
        times, pruned = peer(checkpoint, folder, image)
        spent = niwaki(arguments.niwaki, model, small) if arguments.niwaki else None
        # The first of each fills caches.
        if run > 0:
            peers.append(times)
            ours.append(spent)
    print(f"half the channels: {sizes(pruned, image)}")
    if not arguments.no_groups:
        print("\n".join(groups(net, image)))
    parts = [statistics.median(column) for column in zip(*peers)]
    print("Torch-Pruning, s        " + ", ".join(f"{stage} {seconds:.3f}" for stage, seconds in zip(STAGES, parts)))
    saved = statistics.median(sum(times[:4]) for times in peers)
    exported = statistics.median(sum(times[:3]) + times[4] for times in peers)
    print(f"  saved by torch.save  {saved:8.3f} s")
    print(f"  exported to ONNX     {exported:8.3f} s")
    if arguments.niwaki:
        mine = statistics.median(ours)
        print(f"niwaki                 {mine:8.3f} s   ({parameters_of(small) / 1e6:.2f} M parameters)")
        print(f"ratio                  {saved / mine:8.1f} to torch.save, {exported / mine:.1f} to export")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each; medians are compared")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--no-groups", action="store_true", help="leave out the lines on groups")
    built = Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "release" / "niwaki"
    parser.add_argument("--niwaki", nargs="?", const=built, type=Path, metavar="BINARY", help=f"{built} by default")
    arguments = parser.parse_args()
    if arguments.niwaki and not arguments.niwaki.is_file():
        parser.error(f"{arguments.niwaki}: no such file; cargo build --release --features cli makes it")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "torch-pruning"))
    print(f"{datetime.date.today()}, {versions}, {torch.get_num_threads()} threads, medians of {arguments.runs}")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.nets:
            compare(name, arguments, Path(folder), torch.randn(1, 3, 224, 224))


if __name__ == "__main__":
    main()
