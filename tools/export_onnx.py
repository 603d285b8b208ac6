#!/usr/bin/env python3
"""Export small networks of many architectures, with random weights, to ONNX: the test data in tests/data/onnx.

    python -m venv venv && venv/bin/pip install torch onnx onnxscript numpy
    venv/bin/python tools/export_onnx.py OUT_DIR           narrow networks, under 200 kB each
    venv/bin/python tools/export_onnx.py OUT_DIR --full    resnet18-full.onnx and resnet50-full.onnx only

NAME.onnx comes from torch's exporter over torch.export (dynamo), NAME-ts.onnx from the older one over TorchScript;
the rest is put together from ONNX nodes here. Every bias is off zero, and batch norms have statistics of their own,
so that a unit that is dropped without its bias shows in the output. One seed for each network: the same versions
write the same bytes on one kind of CPU.
"""

import argparse
import contextlib
import io
import logging
import os
import warnings
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnx_nets as nets
import onnxscript.optimizer
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

LIMIT = 200_000


def settle(net, inputs):
    """Give `net` weights that keep signals in range, and norms and biases that matter; eval mode."""
    norms = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d, nets.Llama.Norm)
    with torch.no_grad():
        for module in net.modules():
            for name, values in module.named_parameters(recurse=False):
                if isinstance(module, norms) and name == "weight" or name == "scale":
                    values.uniform_(0.5, 1.5)
                elif values.dim() == 1:
                    values.uniform_(0.05, 0.4).mul_(torch.randint(0, 2, values.shape) * 2 - 1)
                elif isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(values)
                elif isinstance(module, nn.Embedding) or name in ("token", "positions"):
                    values.normal_()
        # Weak branches, as training makes them: with strong ones a deep net blows rounding up a thousandfold.
        for module in net.modules():
            if isinstance(module, nets.Bottleneck):
                module.bn3.weight.mul_(0.3)
        batch_norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        # Statistics of one random batch, then moved, as a network in training has them.
        for module in batch_norms:
            module.momentum = None
        net.train()
        if batch_norms:
            net(*(torch.randn(16, *x.shape[1:]) for x in inputs))
        for module in batch_norms:
            # A channel that hardly moves would be blown up, and its rounding with it.
            module.running_var.clamp_(min=0.2 * float(module.running_var.mean()))
            spread = module.running_var.sqrt()
            module.running_mean += 0.2 * spread * torch.randn_like(spread)
            module.running_var *= torch.empty_like(spread).uniform_(0.7, 1.4)
    return net.eval()


def image(channels, side, batch=2):
    return torch.randn(batch, channels, side, side)


def tokens(words, batch=2, length=8):
    return torch.randint(0, words, (batch, length))


def batch_norms_stay(model):
    """Of what the newer exporter simplifies only constants, so that batch norms stay nodes."""
    onnxscript.optimizer.fold_constants_ir(model)
    onnxscript.optimizer.remove_unused_nodes(model)


def transposes_stay(model):
    """All that the newer exporter simplifies but transposed weights, which in large networks it leaves alone."""
    onnxscript.optimizer.optimize_ir(model, input_size_limit=64)


def as_traced(_model):
    """Nothing simplified."""


BATCH, TEXT, MAP = {0: "batch"}, {0: "batch", 1: "length"}, {0: "batch", 2: "height", 3: "width"}


def export(
    path, make, *, names=("x",), outputs=("y",), axes=(BATCH,), script=False, opset=None, folded=True, simplify=None
):
    """Write one network. `make` gives the module and its inputs; `axes` the dynamic axes of each input.

    `folded` False keeps batch norms and transposed weights as nodes in the older exporter (`script`); `simplify` says
    what the newer one does in place of all.
    """
    torch.manual_seed(zlib.crc32(path.stem.split("-ts")[0].split("-raw")[0].encode()))
    net, inputs = make()
    net = settle(net, inputs)
    # Half precision last: statistics are taken in f32.
    if path.stem.startswith("f16"):
        net, inputs = net.half(), tuple(x.half() for x in inputs)
    options = {"input_names": list(names), "output_names": list(outputs)}
    options["opset_version"] = opset or (17 if script else 18)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        if script:
            options["dynamic_axes"] = dict(zip(names, axes)) | {name: {0: "batch"} for name in outputs}
            options["training"] = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
            torch.onnx.export(net, inputs, buffer, dynamo=False, do_constant_folding=folded, **options)
            model = onnx.load_from_string(buffer.getvalue())
        else:
            longest = {"length": 32}
            dims = {name: torch.export.Dim(name, max=longest.get(name)) for one in axes for name in one.values()}
            options["dynamic_shapes"] = tuple({axis: dims[name] for axis, name in one.items()} for one in axes)
            options |= {"external_data": False, "optimize": simplify is None}
            program = torch.onnx.export(net, inputs, dynamo=True, **options)
            if simplify is not None:
                simplify(program.model)
            model = program.model_proto
    strip(model)
    save(model, path)


def strip(model):
    """Drop what only a person who debugs the exporter reads: stack traces and the like."""
    for graph in (model.graph, *model.functions):
        graph.doc_string = ""
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
        for value in graph.value_info:
            del value.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]


def save(model, path, check=True):
    if check:
        onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    size = path.stat().st_size
    print(f"{path.name:28} {size:9,} bytes, {len(model.graph.node):4} nodes", flush=True)


NARROW18 = {"stem": 6, "planes": (6, 8, 10, 12), "classes": 10}
NARROW50 = {"stem": 6, "planes": (4, 6, 6, 8), "classes": 10}


def exports():
    """File name, module and inputs, options."""
    resnet18 = lambda: (nets.resnet18(**NARROW18), (image(3, 32),))
    yield "resnet18", resnet18, {"simplify": batch_norms_stay}
    yield "resnet18-ts", resnet18, {"opset": 13}
    resnet50 = lambda: (nets.resnet50(**NARROW50), (image(3, 32),))
    yield "resnet50", resnet50, {}
    yield "resnet50-ts", resnet50, {"folded": False}
    densenet = lambda: (nets.DenseNet(), (image(3, 16),))
    yield "densenet", densenet, {}
    yield "densenet-ts", densenet, {"folded": False, "opset": 14}
    mobilenet = lambda: (nets.MobileNetV2(), (image(3, 32),))
    yield "mobilenetv2", mobilenet, {"simplify": batch_norms_stay}
    yield "mobilenetv2-ts", mobilenet, {}
    efficientnet = lambda: (nets.EfficientNet(), (image(3, 32),))
    yield "efficientnet", efficientnet, {}
    yield "efficientnet-ts", efficientnet, {"folded": False, "opset": 15}
    unet = lambda: (nets.UNet(), (image(3, 16),))
    yield "unet", unet, {}
    yield "unet-ts", unet, {"axes": (MAP,), "folded": False}
    vgg = lambda: (nets.Vgg(), (image(3, 16),))
    yield "vgg", vgg, {}
    yield "vgg-ts", vgg, {"opset": 13}
    bert = lambda: (nets.Bert(), (tokens(48), torch.ones(2, 8, dtype=torch.long)))
    pair = {"names": ("tokens", "mask"), "outputs": ("hidden", "classes"), "axes": (TEXT, TEXT)}
    yield "bert", bert, pair
    yield "bert-ts", bert, pair | {"opset": 14}
    llama = lambda: (nets.Llama(), (tokens(48),))
    text = {"names": ("tokens",), "outputs": ("logits",), "axes": (TEXT,)}
    yield "llama", llama, text
    yield "llama-ts", llama, text | {"folded": False}
    yield "llama-tied", lambda: (nets.Llama(tied=True), (tokens(48),)), text | {"simplify": transposes_stay}
    convnext = lambda: (nets.ConvNext(), (image(3, 32),))
    yield "convnext", convnext, {}
    yield "convnext-ts", convnext, {"opset": 16}
    tagger = lambda: (nets.LstmTagger(), (tokens(40),))
    yield "lstm-tagger", tagger, text
    yield "lstm-tagger-ts", tagger, text | {"opset": 14}
    gru = lambda: (nets.GruNet(), (torch.randn(2, 6, 8),))
    yield "gru", gru, {}
    yield "gru-ts", gru, {"axes": ({0: "batch", 2: "length"},)}
    shufflenet = lambda: (nets.ShuffleNet(), (image(3, 16),))
    yield "shufflenet", shufflenet, {}
    yield "shufflenet-ts", shufflenet, {"folded": False}
    shufflenetv2 = lambda: (nets.ShuffleNetV2(), (image(3, 16),))
    yield "shufflenetv2", shufflenetv2, {}
    yield "shufflenetv2-raw", shufflenetv2, {"simplify": as_traced}
    groupnorm = lambda: (nets.GroupNormNet(), (image(3, 16),))
    yield "groupnorm", groupnorm, {"opset": 21}
    yield "groupnorm-ts", groupnorm, {}
    vit = lambda: (nets.Vit(), (image(3, 16),))
    yield "vit", vit, {}
    yield "vit-ts", vit, {}
    superres = lambda: (nets.SuperResolution(), (image(1, 6),))
    yield "superres", superres, {"axes": (MAP,)}
    yield "superres-ts", superres, {"opset": 13}
    yield "f16-vgg", vgg, {}


# Networks put together from ONNX nodes


class Builder:
    """Nodes and weights of a graph, weights drawn from one generator."""

    def __init__(self, seed):
        self.random = np.random.default_rng(zlib.crc32(seed.encode()))
        self.nodes, self.weights = [], []

    def draw(self, name, *shape):
        """A weight; vectors stay off zero."""
        values = self.random.normal(size=shape) / np.sqrt(max(1, np.prod(shape[1:])))
        if len(shape) == 1:
            values = np.sign(values) * self.random.uniform(0.05, 0.4, shape)
        return numpy_helper.from_array(values.astype(np.float32), name)

    def weight(self, name, *shape):
        self.weights.append(self.draw(name, *shape))
        return name

    def conv(self, name, x, inputs, outputs, kernel=3, **more):
        """A convolution with weight and bias in initializers; gives its output's name."""
        weight = self.weight(f"{name}.weight", outputs, inputs, kernel, kernel)
        bias = self.weight(f"{name}.bias", outputs)
        self.node("Conv", [x, weight, bias], name, pads=[kernel // 2] * 4, **more)
        return name

    def node(self, kind, inputs, output, **more):
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"/{output}", **more))
        return output

    def tail(self, x, width, classes=5):
        """Mean over the map and a linear layer into `y`."""
        x = self.node("Flatten", [self.node("GlobalAveragePool", [x], "mean")], "flat")
        weight, bias = self.weight("fc.weight", classes, width), self.weight("fc.bias", classes)
        self.node("Gemm", [x, weight, bias], "y", transB=1)

    def model(self, name, shape=("batch", 3, 12, 12), classes=5, opset=17, domains=(), functions=()):
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", classes))
        graph = helper.make_graph(self.nodes, name, [x], [y], self.weights)
        opsets = [helper.make_opsetid(*one) for one in (("", opset), *domains)]
        more = {"functions": list(functions), "ir_version": 8, "producer_name": "niwaki"}
        return helper.make_model(graph, opset_imports=opsets, **more)


def custom_op(name, function):
    """An operator of a foreign domain between two pairs of convolutions, its body unknown or a function of the file.

    Whatever it does to its channels, those of `conv2` and of `conv3`'s input cannot be known to be free.
    """
    b = Builder(name)
    x = b.node("Relu", [b.conv("conv1", "x", 3, 8)], "relu1")
    x = b.node("Squash", [b.conv("conv2", x, 8, 6)], "squash", domain="com.example", strength=0.5)
    x = b.node("Relu", [b.conv("conv3", x, 6, 10)], "relu3")
    b.tail(b.node("Relu", [b.conv("conv4", x, 10, 7)], "relu4"), 7)
    if not function:
        return b.model(name, domains=[("com.example", 1)])
    body = [helper.make_node("Constant", [], ["strength"]), helper.make_node("Mul", ["input", "strength"], ["scaled"])]
    body[0].attribute.add(name="value_float", ref_attr_name="strength", type=onnx.AttributeProto.FLOAT)
    body.append(helper.make_node("Tanh", ["scaled"], ["output"]))
    opsets = [helper.make_opsetid("", 17)]
    squash = helper.make_function("com.example", "Squash", ["input"], ["output"], body, opsets, ["strength"])
    return b.model(name, domains=[("com.example", 1)], functions=[squash])


def branches(name):
    """An `If` on the sign of the input's sum; each branch reads an outer map through convolutions of its own."""
    b = Builder(name)
    x = b.node("Relu", [b.conv("stem", "x", 3, 8)], "relu")
    total = b.node("ReduceSum", ["x"], "total", keepdims=0)
    b.weights.append(numpy_helper.from_array(np.float32(0), "zero"))
    test = b.node("Greater", [total, "zero"], "positive")
    graphs = []
    for branch, depth in (("then", 1), ("else", 2)):
        inner = Builder(f"{name} {branch}")
        y = x
        for index, (inputs, outputs) in enumerate(((8, 6),) if depth == 1 else ((8, 7), (7, 6))):
            y = inner.node("Relu", [inner.conv(f"{branch}.conv{index}", y, inputs, outputs)], f"{branch}.relu{index}")
        out = helper.make_tensor_value_info(y, TensorProto.FLOAT, None)
        graphs.append(helper.make_graph(inner.nodes, branch, [], [out], inner.weights))
    b.node("If", [test], "joined", then_branch=graphs[0], else_branch=graphs[1])
    b.tail(b.node("Relu", [b.conv("last", "joined", 6, 9)], "relu_last"), 9)
    return b.model(name)


def constants(name):
    """All weights and shapes in `Constant` nodes, tensors and lists, one behind an `Identity`."""
    b = Builder(name)
    x = b.node("Relu", [b.conv("conv1", "x", 3, 8)], "relu1")
    x = b.node("Relu", [b.conv("conv2", x, 8, 6, strides=[2, 2])], "relu2")
    scale = b.weight("scale", 6, 1, 1)
    x = b.node("Mul", [x, scale], "scaled")
    shape = b.node("Constant", [], "shape", value_ints=[0, 6 * 36])
    x = b.node("Reshape", [x, shape], "flat")
    weight = b.node("Identity", [b.weight("fc1.weight", 6 * 36, 16)], "fc1.alias")
    x = b.node("MatMul", [x, weight], "fc1")
    x = b.node("Add", [x, b.weight("fc1.bias", 16)], "fc1.sum")
    x = b.node("Tanh", [x], "tanh")
    floats = [float(value) for value in b.random.uniform(0.1, 0.4, 5)]
    bias = b.node("Constant", [], "fc2.bias", value_floats=floats)
    b.node("Gemm", [x, b.weight("fc2.weight", 16, 5), bias], "y")
    stored = [helper.make_node("Constant", [], [weight.name], name=weight.name, value=weight) for weight in b.weights]
    b.nodes[:0], b.weights = stored, []
    return b.model(name)


def external(name):
    """Linear layers whose weights lie in a file beside the model, at offsets that are multiples of 64."""
    b = Builder(name)
    x = b.node("Gemm", ["x", b.weight("fc1.weight", 16, 12), b.weight("fc1.bias", 16)], "fc1", transB=1)
    x = b.node("Relu", [x], "relu1")
    x = b.node("Gemm", [x, b.weight("fc2.weight", 16, 10), b.weight("fc2.bias", 10)], "fc2")
    x = b.node("Relu", [x], "relu2")
    b.node("Gemm", [x, b.weight("fc3.weight", 5, 10), b.weight("fc3.bias", 5)], "y", transB=1)
    model, data = b.model(name, shape=("batch", 12)), bytearray()
    for weight in model.graph.initializer:
        data += bytes(-len(data) % 64)
        length = len(weight.raw_data)
        onnx.external_data_helper.set_external_data(weight, f"{name}.bin", offset=len(data), length=length)
        data += weight.raw_data
        weight.ClearField("raw_data")
    return model, bytes(data)


def typed(name):
    """Weights in the typed fields (`float_data`, `int64_data`), not in raw bytes."""
    b = Builder(name)
    x = b.node("Relu", [b.conv("conv1", "x", 3, 8)], "relu1")
    x = b.node("Relu", [b.conv("conv2", x, 8, 6)], "relu2")
    b.tail(x, 6)
    model = b.model(name)
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        weight.CopyFrom(helper.make_tensor(weight.name, TensorProto.FLOAT, values.shape, values.ravel().tolist()))
    return model


def put_together(out):
    save(custom_op("custom-op", False), out / "custom-op.onnx")
    save(custom_op("custom-function", True), out / "custom-function.onnx")
    save(branches("if-branches"), out / "if-branches.onnx")
    save(constants("constant-nodes"), out / "constant-nodes.onnx")
    save(typed("typed-fields"), out / "typed-fields.onnx")
    model, data = external("gemm-external")
    (out / "gemm-external.bin").write_bytes(data)
    save(model, out / "gemm-external.onnx", check=False)
    onnx.checker.check_model(out / "gemm-external.onnx", full_check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--full", action="store_true", help="only ResNet-18 and ResNet-50 at full width, 1000 classes")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these of torch's exports")
    arguments = parser.parse_args()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    os.makedirs(arguments.out, exist_ok=True)
    if arguments.full:
        for name in ("resnet18", "resnet50"):
            make = lambda: (getattr(nets, name)(), (image(3, 64),))
            export(arguments.out / f"{name}-full.onnx", make, script=True, folded=False)
        return
    for name, make, options in exports():
        if not arguments.only or name in arguments.only:
            export(arguments.out / f"{name}.onnx", make, script=name.endswith("-ts"), **options)
    if not arguments.only:
        put_together(arguments.out)
    for path in arguments.out.glob("*.onnx"):
        if not path.stem.endswith("-full") and path.stat().st_size >= LIMIT:
            raise SystemExit(f"{path}: {path.stat().st_size} bytes, the limit is {LIMIT}")


if __name__ == "__main__":
    main()
