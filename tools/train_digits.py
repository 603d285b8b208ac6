#!/usr/bin/env python3
"""Train the small digit classifier used by the quickstart example.

Reads   examples/data/digits-{images-idx3,labels-idx1}-ubyte
Writes  examples/data/digits.safetensors        the trained network
        examples/data/digits-early.safetensors  the same run after 20% of its steps

The first 1437 images train the network, the last 360 test it. The test images
are read once, to print the final accuracies; nothing is chosen by them. To try
other settings, use --validate: it trains on the first 1237 images, reports the
accuracy on the next 200 and writes nothing.

Needs torch, numpy and safetensors. It runs on one CPU thread from a fixed seed;
the result is reproducible for one torch version on one kind of CPU.
"""

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

DATA = Path(__file__).resolve().parent.parent / "examples" / "data"
N_TRAIN = 1437  # the remaining 360 images are the test set
N_VAL = 200  # tail of the training part held out by --validate


def read_idx(path):
    """Read an IDX file of unsigned bytes: magic 00 00 08 <rank>, big-endian shape, data."""
    raw = path.read_bytes()
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", count=rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(tuple(shape))


def load_digits(folder=DATA):
    """All images as f32 [n,1,8,8] scaled to 0..1, and their labels."""
    images = read_idx(folder / "digits-images-idx3-ubyte").astype(np.float32) / 16
    labels = read_idx(folder / "digits-labels-idx1-ubyte").astype(np.int64)
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels)


class DigitsNet(nn.Module):
    """Convolution, residual block, convolution, linear classifier.

    Channel dropout is active in training only. It keeps the network from relying
    on single channels, which makes it a fair subject for channel pruning.
    """

    def __init__(self, width=32, inner=32, top=64, dropout=0.2):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, inner, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv4 = nn.Conv2d(width, top, 3, padding=1, bias=False)
        self.bn4 = nn.BatchNorm2d(top)
        self.fc = nn.Linear(top * 2 * 2, 10)
        self.drop = nn.Dropout2d(dropout)

    def forward(self, x):
        x = self.drop(F.relu(self.bn1(self.conv1(x))))
        y = self.drop(F.relu(self.bn2(self.conv2(x))))
        x = self.drop(F.relu(x + self.bn3(self.conv3(y))))
        x = F.avg_pool2d(x, 2)
        x = self.drop(F.relu(self.bn4(self.conv4(x))))
        x = F.avg_pool2d(x, 2)
        return self.fc(x.flatten(1))


def augment(x, shift, noise):
    """Shift each image by up to one pixel with probability `shift`; add Gaussian noise."""
    n = len(x)
    padded = F.pad(x, (1, 1, 1, 1))
    offset = torch.randint(0, 3, (n, 2))
    offset[torch.rand(n) >= shift] = 1  # 1 is the centre of the padding: no shift
    index = torch.arange(8)
    rows = (offset[:, :1] + index)[:, :, None]
    cols = (offset[:, 1:] + index)[:, None, :]
    x = padded[torch.arange(n)[:, None, None], 0, rows, cols].unsqueeze(1)
    return x + noise * torch.randn_like(x)


@torch.no_grad()
def finished(averaged, x):
    """A copy of the averaged network with its batch-norm statistics measured on clean `x`.

    Averaged weights need their own statistics, and those seen in training are
    biased by dropout and augmentation. One layer is measured after another, each
    on the whole set, behind layers that already use their final statistics.
    """
    net = copy.deepcopy(averaged).eval()
    for bn in (net.bn1, net.bn2, net.bn3, net.bn4):
        bn.momentum = 1.0  # replace the running statistics by those of one batch
        bn.train()
        net(x)
        bn.eval()
    return net


@torch.no_grad()
def accuracy(net, x, y):
    return (net.eval()(x).argmax(1) == y).double().mean().item()


def train(args, x, y):
    """Train on x, y. Returns the early snapshot and the final network."""
    torch.manual_seed(args.seed)
    net = DigitsNet(args.width, args.inner, args.top, args.dropout)
    averaged = copy.deepcopy(net)  # exponential moving average of the weights
    optimizer = torch.optim.AdamW(net.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    steps = args.epochs * (len(x) // args.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, steps, pct_start=0.1)
    step = 0
    for epoch in range(args.epochs):
        net.train()
        order = torch.randperm(len(x))
        for batch in order[: len(x) // args.batch * args.batch].split(args.batch):
            logits = net(augment(x[batch], args.shift, args.noise))
            loss = F.cross_entropy(logits, y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            # The average forgets the random start quickly, then spans many steps.
            decay = min(args.average, step / (step + 10))
            with torch.no_grad():
                for mean, value in zip(averaged.parameters(), net.parameters()):
                    mean.lerp_(value, 1 - decay)
            if step == steps // 5:
                early = finished(averaged, x)
        if (epoch + 1) % 20 == 0:
            print(f"epoch {epoch + 1:4d}  loss of the last batch {loss.item():.4f}", flush=True)
    return early, finished(averaged, x)


def save(net, path):
    """Write all parameters and running statistics as f32."""
    tensors = {
        name: tensor.detach().float().contiguous()
        for name, tensor in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    save_file(tensors, path)
    print(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size} bytes")


def parse_args(argv=None):
    p = argparse.ArgumentParser(
        description="Train the digit classifier of the quickstart example.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("--validate", action="store_true", help="hold out 200 training images; write nothing")
    p.add_argument("--seed", type=int, default=2)
    p.add_argument("--epochs", type=int, default=100)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--lr", type=float, default=4e-3, help="peak learning rate (one-cycle, cosine)")
    p.add_argument("--weight-decay", type=float, default=0.05)
    p.add_argument("--dropout", type=float, default=0.2, help="channel dropout after each activation")
    p.add_argument("--average", type=float, default=0.99, help="decay of the weight average")
    p.add_argument("--shift", type=float, default=0.5, help="probability of a shift by up to one pixel")
    p.add_argument("--noise", type=float, default=0.05, help="standard deviation of the added noise")
    p.add_argument("--width", type=int, default=32, help="channels of conv1 and conv3")
    p.add_argument("--inner", type=int, default=32, help="channels of conv2")
    p.add_argument("--top", type=int, default=64, help="channels of conv4")
    return p.parse_args(argv)


def main():
    args = parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    x, y = load_digits()
    n = N_TRAIN - N_VAL if args.validate else N_TRAIN
    early, final = train(args, x[:n], y[:n])
    if args.validate:
        held, part = slice(n, N_TRAIN), "validation"
    else:
        held, part = slice(N_TRAIN, None), "test"
        save(early, DATA / "digits-early.safetensors")
        save(final, DATA / "digits.safetensors")
    for name, net in ("early", early), ("final", final):
        print(
            f"{name}: train {accuracy(net, x[:n], y[:n]):.4f}, "
            f"{part} {accuracy(net, x[held], y[held]):.4f}"
        )


if __name__ == "__main__":
    main()
