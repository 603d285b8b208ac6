"""Plain torch modules of the architectures that tools/export_onnx.py exports and benches/peers times.

Written from the papers named at each class; widths are arguments, and the defaults are as narrow as test data has to
be. Needs torch.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


def conv_bn(inputs, outputs, kernel=3, stride=1, groups=1):
    """Convolution without bias and its batch norm, "same" padding."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


# Residual networks: He et al., Deep Residual Learning for Image Recognition, 2015.


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = conv_bn(inputs, planes, 1, stride) if stride != 1 or inputs != planes else None

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution beside a shortcut; the 3x3 one has the stride."""

    expansion = 4

    def __init__(self, inputs, planes, stride):
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = conv_bn(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else None

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Stem, four stages of blocks, mean over the map, linear classifier."""

    def __init__(self, block, depths, stem=64, planes=(64, 128, 256, 512), classes=1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        width = stem
        for stage, (depth, plane) in enumerate(zip(depths, planes), 1):
            blocks = []
            for index in range(depth):
                blocks.append(block(width, plane, 2 if index == 0 and stage > 1 else 1))
                width = plane * block.expansion
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def resnet18(**widths):
    return ResNet(BasicBlock, (2, 2, 2, 2), **widths)


def resnet50(**widths):
    return ResNet(Bottleneck, (3, 4, 6, 3), **widths)


class DenseNet(nn.Module):
    """Each layer reads all earlier ones of its block (Huang et al., 2016); transitions halve width and map."""

    class Layer(nn.Module):
        def __init__(self, inputs, growth):
            super().__init__()
            self.norm1 = nn.BatchNorm2d(inputs)
            self.conv1 = nn.Conv2d(inputs, 2 * growth, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(2 * growth)
            self.conv2 = nn.Conv2d(2 * growth, growth, 3, 1, 1, bias=False)

        def forward(self, x):
            y = self.conv1(F.relu(self.norm1(x)))
            y = self.conv2(F.relu(self.norm2(y)))
            return torch.cat([x, y], 1)

    def __init__(self, stem=8, growth=6, depths=(3, 3, 2), classes=10):
        super().__init__()
        parts = [nn.Conv2d(3, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU(), nn.MaxPool2d(2)]
        width = stem
        for block, depth in enumerate(depths):
            if block > 0:
                half = width // 2
                parts += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, half, 1, bias=False), nn.AvgPool2d(2)]
                width = half
            for _ in range(depth):
                parts.append(DenseNet.Layer(width, growth))
                width += growth
        self.features = nn.Sequential(*parts, nn.BatchNorm2d(width))
        self.classifier = nn.Linear(width, classes)

    def forward(self, x):
        x = F.relu(self.features(x))
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class MobileNetV2(nn.Module):
    """Inverted residuals with depthwise convolutions and linear ends (Sandler et al., 2018)."""

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride, expand):
            super().__init__()
            wide = inputs * expand
            self.expand = conv_bn(inputs, wide, 1) if expand > 1 else None
            self.depthwise = conv_bn(wide, wide, 3, stride, groups=wide)
            self.project = conv_bn(wide, outputs, 1)
            self.shortcut = stride == 1 and inputs == outputs

        def forward(self, x):
            y = x if self.expand is None else F.relu6(self.expand(x))
            y = self.project(F.relu6(self.depthwise(y)))
            return x + y if self.shortcut else y

    def __init__(self, classes=10):
        super().__init__()
        rows = [(8, 6, 1, 1), (6, 8, 2, 4), (8, 8, 1, 4), (8, 12, 2, 4), (12, 12, 1, 4), (12, 12, 1, 4), (12, 16, 1, 4)]
        self.stem = conv_bn(3, 8, 3, 2)
        self.blocks = nn.Sequential(*[MobileNetV2.Block(*row) for row in rows])
        self.last = conv_bn(16, 40, 1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(40, classes))

    def forward(self, x):
        x = F.relu6(self.last(self.blocks(F.relu6(self.stem(x)))))
        return self.classifier(x.mean((2, 3)))


class EfficientNet(nn.Module):
    """Inverted residuals with squeeze-and-excite and SiLU (Tan and Le, 2019; Hu et al., 2017)."""

    class Squeeze(nn.Module):
        def __init__(self, width, narrow):
            super().__init__()
            self.fc1 = nn.Conv2d(width, narrow, 1)
            self.fc2 = nn.Conv2d(narrow, width, 1)

        def forward(self, x):
            gate = F.adaptive_avg_pool2d(x, 1)
            return x * torch.sigmoid(self.fc2(F.silu(self.fc1(gate))))

    class Block(nn.Module):
        def __init__(self, inputs, outputs, kernel, stride, expand):
            super().__init__()
            wide = inputs * expand
            self.expand = conv_bn(inputs, wide, 1) if expand > 1 else None
            self.depthwise = conv_bn(wide, wide, kernel, stride, groups=wide)
            self.squeeze = EfficientNet.Squeeze(wide, max(3, inputs // 2))
            self.project = conv_bn(wide, outputs, 1)
            self.shortcut = stride == 1 and inputs == outputs

        def forward(self, x):
            y = x if self.expand is None else F.silu(self.expand(x))
            y = self.project(self.squeeze(F.silu(self.depthwise(y))))
            return x + y if self.shortcut else y

    def __init__(self, classes=10):
        super().__init__()
        rows = [(8, 6, 3, 1, 1), (6, 8, 3, 2, 4), (8, 8, 3, 1, 4), (8, 12, 5, 2, 4), (12, 12, 5, 1, 4)]
        self.stem = conv_bn(3, 8, 3, 2)
        self.blocks = nn.Sequential(*[EfficientNet.Block(*row) for row in rows])
        self.last = conv_bn(12, 32, 1)
        self.classifier = nn.Linear(32, classes)

    def forward(self, x):
        x = F.silu(self.last(self.blocks(F.silu(self.stem(x)))))
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class UNet(nn.Module):
    """Down and up again with concatenated skips (Ronneberger et al., 2015).

    The deeper step up is a transposed convolution, the other an upsampling.
    """

    def __init__(self, inputs=3, widths=(6, 10, 14), outputs=2):
        super().__init__()
        a, b, c = widths
        self.down1 = UNet.double(inputs, a)
        self.down2 = UNet.double(a, b)
        self.bottom = UNet.double(b, c)
        self.up2 = nn.ConvTranspose2d(c, b, 2, 2)
        self.join2 = UNet.double(2 * b, b)
        self.up1 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.join1 = UNet.double(a + b, a)
        self.head = nn.Conv2d(a, outputs, 1)

    @staticmethod
    def double(inputs, outputs):
        return nn.Sequential(conv_bn(inputs, outputs), nn.ReLU(), conv_bn(outputs, outputs), nn.ReLU())

    def forward(self, x):
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        x = self.bottom(F.max_pool2d(two, 2))
        x = self.join2(torch.cat([two, self.up2(x)], 1))
        x = self.join1(torch.cat([one, self.up1(x)], 1))
        return torch.sigmoid(self.head(x))


class Vgg(nn.Module):
    """Plain convolutions with biases, map flattened into linear layers (Simonyan and Zisserman, 2014)."""

    def __init__(self, widths=(6, 8, 12, 10), hidden=24, classes=10):
        super().__init__()
        parts, width = [], 3
        for index, outputs in enumerate(widths):
            parts += [nn.Conv2d(width, outputs, 3, padding=1), nn.ReLU()]
            if index % 2 == 1:
                parts.append(nn.MaxPool2d(2))
            width = outputs
        self.features = nn.Sequential(*parts)
        first, second = nn.Linear(width * 16, hidden), nn.Linear(hidden, 16)
        last = nn.Linear(16, classes)
        self.classifier = nn.Sequential(first, nn.ReLU(), nn.Dropout(), second, nn.ReLU(), last)

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class ConvNext(nn.Module):
    """Depthwise 7x7, norm over channels last, two linear layers, layer scale (Liu et al., 2022)."""

    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
            self.norm = nn.LayerNorm(width, eps=1e-6)
            self.wide = nn.Linear(width, 3 * width)
            self.narrow = nn.Linear(3 * width, width)
            self.scale = nn.Parameter(torch.empty(width))

        def forward(self, x):
            y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
            y = self.scale * self.narrow(F.gelu(self.wide(y)))
            return x + y.permute(0, 3, 1, 2)

    class Norm(nn.LayerNorm):
        """LayerNorm over the channels of a map."""

        def forward(self, x):
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def __init__(self, widths=(8, 12, 16), depths=(1, 2, 1), classes=10):
        super().__init__()
        parts = [nn.Conv2d(3, widths[0], 4, 4), ConvNext.Norm(widths[0])]
        for stage, (width, depth) in enumerate(zip(widths, depths)):
            if stage > 0:
                parts += [ConvNext.Norm(widths[stage - 1]), nn.Conv2d(widths[stage - 1], width, 2, 2)]
            parts += [ConvNext.Block(width) for _ in range(depth)]
        self.features = nn.Sequential(*parts)
        self.norm = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x):
        return self.head(self.norm(self.features(x).mean((-2, -1))))


def shuffle(x, groups):
    """Channels of `groups` groups taken in turns."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)


class ShuffleNet(nn.Module):
    """Grouped 1x1 convolutions with a channel shuffle between (Zhang et al., 2017)."""

    class Block(nn.Module):
        def __init__(self, width, groups):
            super().__init__()
            self.groups = groups
            self.squeeze = conv_bn(width, width // 2, 1, groups=groups)
            self.depthwise = conv_bn(width // 2, width // 2, 3, groups=width // 2)
            self.expand = conv_bn(width // 2, width, 1, groups=groups)

        def forward(self, x):
            y = shuffle(F.relu(self.squeeze(x)), self.groups)
            return F.relu(x + self.expand(self.depthwise(y)))

    def __init__(self, width=24, groups=3, classes=10):
        super().__init__()
        self.stem = conv_bn(3, width, 3, 2)
        self.blocks = nn.Sequential(*[ShuffleNet.Block(width, groups) for _ in range(2)])
        self.widen = conv_bn(width, 2 * width, 3, 2, groups=groups)
        self.tail = ShuffleNet.Block(2 * width, groups)
        self.classifier = nn.Linear(2 * width, classes)

    def forward(self, x):
        x = self.tail(F.relu(self.widen(self.blocks(F.relu(self.stem(x))))))
        return self.classifier(x.mean((2, 3)))


class ShuffleNetV2(nn.Module):
    """Half the channels passed by, the halves joined and shuffled (Ma et al., 2018)."""

    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            half = width // 2
            self.first = conv_bn(half, half, 1)
            self.depthwise = conv_bn(half, half, 3, groups=half)
            self.last = conv_bn(half, half, 1)

        def forward(self, x):
            kept, y = x.chunk(2, 1)
            y = F.relu(self.last(self.depthwise(F.relu(self.first(y)))))
            return shuffle(torch.cat([kept, y], 1), 2)

    def __init__(self, width=16, classes=10):
        super().__init__()
        self.stem = conv_bn(3, width, 3, 2)
        self.blocks = nn.Sequential(*[ShuffleNetV2.Block(width) for _ in range(3)])
        self.last = conv_bn(width, 32, 1)
        self.classifier = nn.Linear(32, classes)

    def forward(self, x):
        x = F.relu(self.last(self.blocks(F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1))))
        return self.classifier(x.mean((2, 3)))


class GroupNormNet(nn.Module):
    """Residual convolutions with group norms (Wu and He, 2018), the last of them an instance norm."""

    def __init__(self, width=12, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 2, 1)
        self.norm1 = nn.GroupNorm(4, width)
        self.conv2 = nn.Conv2d(width, 18, 3, 1, 1)
        self.norm2 = nn.GroupNorm(3, 18)
        self.conv3 = nn.Conv2d(18, width, 3, 1, 1)
        self.norm3 = nn.GroupNorm(4, width)
        self.conv4 = nn.Conv2d(width, 16, 3, 2, 1)
        self.norm4 = nn.InstanceNorm2d(16, affine=True)
        self.classifier = nn.Linear(16, classes)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(x + self.norm3(self.conv3(F.relu(self.norm2(self.conv2(x))))))
        x = F.leaky_relu(self.norm4(self.conv4(x)), 0.1)
        # Largest values, not means: the mean of an instance-normed map is its bias whatever the input.
        return self.classifier(torch.flatten(F.adaptive_max_pool2d(x, 1), 1))


class SuperResolution(nn.Module):
    """Two pixel shuffles, the first between convolutions, the second at the end (Shi et al., 2016)."""

    def __init__(self, width=12):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 5, padding=2)
        self.conv2 = nn.Conv2d(width, 4 * 6, 3, padding=1)
        self.conv3 = nn.Conv2d(6, 10, 3, padding=1)
        self.conv4 = nn.Conv2d(10, 4, 3, padding=1)
        self.slope = nn.PReLU(10)

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = self.slope(self.conv3(F.pixel_shuffle(x, 2)))
        return F.pixel_shuffle(self.conv4(x), 2)


class Bert(nn.Module):
    """Encoder with learned positions, separate q, k, v and o, GELU, pooler (Devlin et al., 2018)."""

    class Layer(nn.Module):
        def __init__(self, width, heads, hidden):
            super().__init__()
            self.heads = heads
            self.query = nn.Linear(width, width)
            self.key = nn.Linear(width, width)
            self.value = nn.Linear(width, width)
            self.output = nn.Linear(width, width)
            self.norm1 = nn.LayerNorm(width)
            self.up = nn.Linear(width, hidden)
            self.down = nn.Linear(hidden, width)
            self.norm2 = nn.LayerNorm(width)

        def split(self, x):
            batch, length, width = x.shape
            return x.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

        def forward(self, x, mask):
            q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            y = torch.softmax(torch.where(mask, scores, -1e4), -1) @ v
            y = y.transpose(1, 2).reshape(x.shape)
            x = self.norm1(x + self.output(y))
            return self.norm2(x + self.down(F.gelu(self.up(x))))

    def __init__(self, words=48, positions=32, width=24, heads=4, hidden=40, depth=2, classes=3):
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.positions = nn.Embedding(positions, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Bert.Layer(width, heads, hidden) for _ in range(depth))
        self.pooler = nn.Linear(width, width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, tokens, mask):
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.norm(self.words(tokens) + self.positions(places))
        mask = mask[:, None, None, :] > 0
        for layer in self.layers:
            x = layer(x, mask)
        return x, self.classifier(torch.tanh(self.pooler(x[:, 0])))


class Llama(nn.Module):
    """Decoder with RMS norms, rotary positions, grouped-query attention and SwiGLU (Touvron et al., 2023)."""

    class Norm(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(width))

        def forward(self, x):
            return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))

    class Layer(nn.Module):
        def __init__(self, width, heads, shared, size, hidden):
            super().__init__()
            self.heads, self.shared, self.size = heads, shared, size
            self.norm1 = Llama.Norm(width)
            self.q_proj = nn.Linear(width, heads * size, bias=False)
            self.k_proj = nn.Linear(width, shared * size, bias=False)
            self.v_proj = nn.Linear(width, shared * size, bias=False)
            self.o_proj = nn.Linear(heads * size, width, bias=False)
            self.norm2 = Llama.Norm(width)
            self.gate_proj = nn.Linear(width, hidden, bias=False)
            self.up_proj = nn.Linear(width, hidden, bias=False)
            self.down_proj = nn.Linear(hidden, width, bias=False)

        @staticmethod
        def rotate(x, cos, sin):
            low, high = x.chunk(2, -1)
            return x * cos + torch.cat([-high, low], -1) * sin

        def repeat(self, x):
            """Each key or value head once for every query head that shares it."""
            batch, shared, length, size = x.shape
            x = x[:, :, None].expand(batch, shared, self.heads // shared, length, size)
            return x.reshape(batch, self.heads, length, size)

        def forward(self, x, cos, sin, mask):
            batch, length, _ = x.shape
            y = self.norm1(x)
            q = self.q_proj(y).view(batch, length, self.heads, self.size).transpose(1, 2)
            k = self.k_proj(y).view(batch, length, self.shared, self.size).transpose(1, 2)
            v = self.v_proj(y).view(batch, length, self.shared, self.size).transpose(1, 2)
            q, k, v = self.rotate(q, cos, sin), self.repeat(self.rotate(k, cos, sin)), self.repeat(v)
            scores = q @ k.transpose(2, 3) * self.size**-0.5 + mask
            y = (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(batch, length, self.heads * self.size)
            x = x + self.o_proj(y)
            y = self.norm2(x)
            return x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))

    def __init__(self, words=48, longest=32, width=24, heads=6, shared=2, size=6, hidden=40, depth=2, tied=False):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.layers = nn.ModuleList(Llama.Layer(width, heads, shared, size, hidden) for _ in range(depth))
        self.norm = Llama.Norm(width)
        self.head = nn.Linear(width, words, bias=False)
        if tied:
            self.head.weight = self.embed.weight
        angles = torch.arange(longest)[:, None] * 10000.0 ** (-torch.arange(0, size, 2) / size)
        angles = torch.cat([angles, angles], -1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        self.register_buffer("mask", torch.full((longest, longest), -1e4).triu(1))

    def forward(self, tokens):
        length = tokens.shape[1]
        cos, sin, mask = self.cos[:length], self.sin[:length], self.mask[:length, :length]
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.head(self.norm(x))


class Vit(nn.Module):
    """Patches, a class token, encoder layers with q, k and v in one linear layer (Dosovitskiy et al., 2020)."""

    class Layer(nn.Module):
        def __init__(self, width, heads, hidden):
            super().__init__()
            self.heads = heads
            self.norm1 = nn.LayerNorm(width)
            self.qkv = nn.Linear(width, 3 * width)
            self.proj = nn.Linear(width, width)
            self.norm2 = nn.LayerNorm(width)
            self.fc1 = nn.Linear(width, hidden)
            self.fc2 = nn.Linear(hidden, width)

        def forward(self, x):
            batch, length, width = x.shape
            qkv = self.qkv(self.norm1(x)).reshape(batch, length, 3, self.heads, width // self.heads)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            y = F.scaled_dot_product_attention(q, k, v)
            x = x + self.proj(y.transpose(1, 2).reshape(batch, length, width))
            return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))

    def __init__(self, side=16, patch=4, width=24, heads=4, hidden=40, depth=2, classes=10):
        super().__init__()
        self.patch = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, (side // patch) ** 2 + 1, width))
        self.layers = nn.ModuleList(Vit.Layer(width, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])


class LstmTagger(nn.Module):
    """Embedding, two bidirectional LSTM layers, a label for each token (Hochreiter and Schmidhuber, 1997)."""

    def __init__(self, words=40, width=14, hidden=12, labels=5, depth=2):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, hidden, depth, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(2 * hidden, labels)

    def forward(self, tokens):
        return self.linear(self.lstm(self.embed(tokens))[0])


class GruNet(nn.Module):
    """A convolution over time, a GRU (Cho et al., 2014), labels from its last state."""

    def __init__(self, inputs=6, width=12, hidden=16, classes=5):
        super().__init__()
        self.conv = nn.Conv1d(inputs, width, 3, padding=1)
        self.gru = nn.GRU(width, hidden, batch_first=True)
        self.linear = nn.Linear(hidden, classes)

    def forward(self, x):
        x = F.relu(self.conv(x)).transpose(1, 2)
        return self.linear(self.gru(x)[0][:, -1])
