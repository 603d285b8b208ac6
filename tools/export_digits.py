#!/usr/bin/env python3
"""Export the digits network of the examples to ONNX, with images to calibrate and to compare.

Reads   examples/data/digits.safetensors, digits-{images-idx3,labels-idx1}-ubyte
Writes  examples/data/digits.onnx             batch norms folded, as exporters do
        examples/data/digits-calibration.npz  `image`: the first 400 training images
        examples/data/digits-test.npz         `image`: the 360 test images, in the order of the labels

Needs torch, onnx, numpy and safetensors.
"""

import warnings

import numpy as np
import onnx
import torch
from safetensors.torch import load_file

from train_digits import DATA, N_TRAIN, DigitsNet, load_digits


def rename(path):
    """Give the convolutions, whose batch norms were folded in, their names back."""
    model = onnx.load(path)
    names = {}
    for number, node in enumerate((n for n in model.graph.node if n.op_type == "Conv"), 1):
        names[node.input[1]] = f"conv{number}.weight"
        names[node.input[2]] = f"conv{number}.bias"
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    onnx.save(model, path)


def main():
    images, labels = load_digits()
    net = DigitsNet()
    net.load_state_dict(load_file(DATA / "digits.safetensors"), strict=False)
    net.eval()
    with torch.no_grad():
        right = (net(images[N_TRAIN:]).argmax(1) == labels[N_TRAIN:]).float().mean()
    print(f"test accuracy {right:.4f}")
    warnings.simplefilter("ignore")
    torch.onnx.export(
        net,
        (images[:2],),
        DATA / "digits.onnx",
        dynamo=False,
        opset_version=17,
        input_names=["image"],
        output_names=["digit"],
        dynamic_axes={"image": {0: "batch"}, "digit": {0: "batch"}},
    )
    rename(DATA / "digits.onnx")
    np.savez_compressed(DATA / "digits-calibration.npz", image=images[:400].numpy())
    np.savez_compressed(DATA / "digits-test.npz", image=images[N_TRAIN:].numpy())


main()
