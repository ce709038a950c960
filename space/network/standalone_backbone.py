"""A SpineNet backbone in one file that needs only PyTorch (SpineNet, Du et al., CVPR 2020).

    backbone = Backbone()
    features = backbone(images)    # (N, 3, H, W) -> {3: (N, 256, H/8, W/8), ..., 7: (N, 256, H/128, W/128)}

A new backbone has random weights, drawn from torch's generator: truncated normals of variance 1 / fan-in. Weights have
the names of spinenas: backbone.load_state_dict(safetensors.torch.load_file(FILE)). `init_cfg` is that of MMDetection,
such as dict(type="Pretrained", checkpoint=FILE), where FILE may also end in .safetensors; `init_weights` applies it.

METADATA: the network and where it comes from. `spinenas show`, `import` and `replay` read it; nothing below does.
BLOCKS: level, kind, parents, blocks that are added without resampling, whether it is an output. Blocks without parents
are the stem; each is fed by the one before it. None is a block that reaches no output.
SAME_PADDING: strided convolutions are padded as in TensorFlow, more after than before.
REPEATED_POOLS: a connection halves by repeated max-pools of stride 2 instead of a single one.
HARD_SQUEEZE: squeeze-excite uses ReLU and a hard sigmoid.
GLOROT_RESAMPLING: depthwise kernels of connections start Glorot-uniform.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# --- architecture
METADATA = {
    "schema": "spinenas-export/1",
    "name": "spinenet-49",
    "network_key": "bff8165843f74d47",
    "architecture": "2b 2b / 2b0,1 4r0,1 3b2,3 4b2,4 6r3,5 4b3,5 5r6,7 7r6,8 5b8,9 5b8,10 4b5,10! 3b4,10! 5b7,12! 7b5,14! 6b12,14!",
    "scaling": {"name": "49", "filter_scale": 1.0, "endpoint_channels": 256, "resample_alpha": 0.5, "block_repeats": 1},
    "dialect": "tensorflow/tpu",
    "activation": "relu",
    "bn_momentum": None,
    "bn_eps": None,
    "weights": "none",
    "run": None,
    "trial": None,
    "spinenas": "0.1.0",
}
BLOCKS: tuple[tuple[int, str, tuple[int, ...], tuple[int, ...], bool] | None, ...] = (
    (2, "bottleneck", (), (), False),
    (2, "bottleneck", (), (), False),
    (2, "bottleneck", (0, 1), (), False),
    (4, "residual", (0, 1), (), False),
    (3, "bottleneck", (2, 3), (), False),
    (4, "bottleneck", (2, 4), (), False),
    (6, "residual", (3, 5), (), False),
    (4, "bottleneck", (3, 5), (), False),
    (5, "residual", (6, 7), (), False),
    (7, "residual", (6, 8), (), False),
    (5, "bottleneck", (8, 9), (), False),
    (5, "bottleneck", (8, 10), (), False),
    (4, "bottleneck", (5, 10), (), True),
    (3, "bottleneck", (4, 10), (), True),
    (5, "bottleneck", (7, 12), (11,), True),
    (7, "bottleneck", (5, 14), (), True),
    (6, "bottleneck", (12, 14), (), True),
)
FILTER_SCALE = 1.0
ENDPOINT_CHANNELS = 256
RESAMPLE_ALPHA = 0.5
BLOCK_REPEATS = 1
ACTIVATION = "relu"
BN_MOMENTUM = 0.003
BN_EPS = 0.0001
SAME_PADDING = False
REPEATED_POOLS = False
HARD_SQUEEZE = False
GLOROT_RESAMPLING = False
# --- end of the architecture

WIDTHS = {1: 32, 2: 64, 3: 128, 4: 256, 5: 256, 6: 256, 7: 256}
MOBILE_WIDTHS = {0: 8, 1: 16, 2: 24, 3: 40, 4: 80, 5: 112, 6: 112, 7: 112}
EXPANSION = 6


def activate(x: Tensor) -> Tensor:
    """The network's activation."""
    return torch.relu(x) if ACTIVATION == "relu" else functional.silu(x)


def channels(level: int, kind: str) -> int:
    """Channels of a block's 3x3 convolution, or of an MBConv's output."""
    return max(1, int((MOBILE_WIDTHS if kind == "mbconv" else WIDTHS)[level] * FILTER_SCALE))


def width(level: int, kind: str) -> int:
    """Channels of a block's input and output."""
    return channels(level, kind) * (4 if kind == "bottleneck" else 1)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding before and after, so that the output has ceil(size / stride) cells."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def max_pool(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Max-pool with output ceil(size / stride)."""
    pads = [same_padding(x.shape[axis - 2], kernel[axis], stride[axis]) for axis in (0, 1)]
    # A window that reaches past the end equals padding with -inf.
    return functional.max_pool2d(
        x, kernel, stride, padding=[before for before, _ in pads], ceil_mode=any(a != b for a, b in pads)
    )


class Conv2d(nn.Conv2d):
    """A convolution without bias, with the padding of the architecture."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.pads_itself = SAME_PADDING and stride > 1

    def forward(self, x: Tensor) -> Tensor:
        if not self.pads_itself:
            return super().forward(x)
        (top, bottom), (left, right) = (
            same_padding(size, self.kernel_size[0], self.stride[0]) for size in x.shape[-2:]
        )
        x = functional.pad(x, (left, right, top, bottom))
        return functional.conv2d(x, self.weight, None, self.stride, groups=self.groups)


def norm(num_channels: int) -> nn.BatchNorm2d:
    """Batch norm of the architecture."""
    return nn.BatchNorm2d(num_channels, eps=BN_EPS, momentum=BN_MOMENTUM)


class ConvNorm(nn.Module):
    """Convolution and batch norm."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, kernel, stride, groups)
        self.bn = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class ResNetBlock(nn.Module):
    """Bottleneck (1x1, 3x3, 1x1) or residual (3x3, 3x3) block, with a projection if size or width change."""

    def __init__(self, kind: str, in_channels: int, num_channels: int, stride: int) -> None:
        super().__init__()
        kernels, out_channels = ((1, 3, 1), 4 * num_channels) if kind == "bottleneck" else ((3, 3), num_channels)
        widths = [in_channels, *[num_channels] * (len(kernels) - 1), out_channels]
        self.num_convs = len(kernels)
        strided = kernels.index(3)
        for i, kernel in enumerate(kernels):
            conv = Conv2d(widths[i], widths[i + 1], kernel, stride if i == strided else 1)
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"bn{i + 1}", norm(widths[i + 1]))
        self.shortcut = None
        if stride > 1 or in_channels != out_channels:
            self.shortcut = ConvNorm(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.num_convs + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.num_convs:
                y = activate(y)
        return activate(y + (x if self.shortcut is None else self.shortcut(x)))


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the means of all channels."""

    def __init__(self, num_channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(num_channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, num_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.reduce(x.mean(dim=(2, 3), keepdim=True))
        y = self.expand(functional.relu(y) if HARD_SQUEEZE else functional.silu(y))
        return x * (functional.relu6(y + 3) * 0.16667 if HARD_SQUEEZE else y.sigmoid())


class MBConv(nn.Module):
    """Expansion, depthwise 3x3, squeeze-excite, projection."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        inner = EXPANSION * in_channels
        self.expand = ConvNorm(in_channels, inner, 1)
        self.dw = ConvNorm(inner, inner, 3, stride, groups=inner)
        self.se = SqueezeExcite(inner, max(1, int(in_channels * 0.2)))
        self.project = ConvNorm(inner, out_channels, 1)
        self.has_identity = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.se(activate(self.dw(activate(self.expand(x))))))
        return y + x if self.has_identity else y


class Resample(nn.Module):
    """A connection: resamples a parent's features to the size and width of the target block."""

    def __init__(self, parent: tuple[int, str], target: tuple[int, str]) -> None:
        super().__init__()
        self.halvings = target[0] - parent[0]
        self.is_mobile = parent[1] == "mbconv"
        if self.is_mobile:
            inner = width(*parent)
            for i in range(self.halvings):
                self.add_module(f"dw{i}", ConvNorm(inner, inner, 3, 2, groups=inner))
            self.proj = ConvNorm(inner, width(*target), 1)
            return
        inner = max(1, int(channels(*parent) * RESAMPLE_ALPHA))
        self.reduce = ConvNorm(width(*parent), inner, 1)
        self.down = ConvNorm(inner, inner, 3, 2) if self.halvings > 0 else None
        self.expand = ConvNorm(inner, width(*target), 1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if self.is_mobile:
            for i in range(self.halvings):
                x = activate(getattr(self, f"dw{i}")(x))
            return self.proj(nearest(x, size))
        parent_size = x.shape[-2:]
        x = activate(self.reduce(x))
        if self.down is not None:
            x = self.pooled(activate(self.down(x)), parent_size, size)
        return self.expand(nearest(x, size))

    def pooled(self, x: Tensor, parent_size: torch.Size, size: tuple[int, int]) -> Tensor:
        """Max-pool by the factor that remains after the strided convolution."""
        if REPEATED_POOLS:
            for _ in range(self.halvings - 1):
                x = max_pool(x, (3, 3), (2, 2))
            return x
        (tall, down), (wide, right) = (single_pool(parent_size[axis], size[axis]) for axis in (0, 1))
        return max_pool(x, (tall, wide), (down, right)) if max(tall, wide) > 1 else x


def single_pool(parent_size: int, size: int) -> tuple[int, int]:
    """Kernel and stride of the single max-pool along an axis."""
    if parent_size // size <= 2:
        return 1, 1
    return 3 if parent_size <= 4 * size else 5, 2 if parent_size % size else parent_size // size // 2


def nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize by nearest neighbours."""
    return x if tuple(x.shape[-2:]) == size else functional.interpolate(x, size=size, mode="nearest")


class Node(nn.Module):
    """A block: sums its resampled parents, applies the activation, and runs the repeated blocks."""

    def __init__(self, level: int, kind: str, in_channels: int, stride: int, parents: list[tuple[int, str]]) -> None:
        super().__init__()
        self.num_parents = len(parents)
        for i, parent in enumerate(parents):
            self.add_module(f"in{i}", Resample(parent, (level, kind)))
        for i in range(BLOCK_REPEATS):
            taken, step = (width(level, kind), 1) if i else (in_channels, stride)
            block: nn.Module
            if kind == "mbconv":
                block = MBConv(taken, channels(level, kind), step)
            else:
                block = ResNetBlock(kind, taken, channels(level, kind), step)
            self.add_module(f"rep{i}", block)

    def forward(self, inputs: list[Tensor], merged: list[Tensor], size: tuple[int, int]) -> Tensor:
        x = inputs[0]
        if self.num_parents:
            x = sum(getattr(self, f"in{i}")(parent, size) for i, parent in enumerate(inputs))
            for dangling in merged:
                x = x + dangling
            x = activate(x)
        for i in range(BLOCK_REPEATS):
            x = getattr(self, f"rep{i}")(x)
        return x


def draw_kernel(conv: nn.Conv2d, generator: torch.Generator | None) -> None:
    """Draw a truncated normal of variance 1 / fan-in, where a depthwise kernel's fan-in counts all channels."""
    fan_in = conv.weight[0].numel() * conv.groups
    # 0.8796 is the standard deviation of a unit normal that is truncated at 2.
    deviation = 1 / math.sqrt(fan_in) / 0.87962566103423978
    nn.init.trunc_normal_(conv.weight, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)


def draw_glorot(conv: nn.Conv2d, generator: torch.Generator | None) -> None:
    """Draw Glorot-uniform, where a depthwise kernel's fan-in counts all channels, and its fan-out one."""
    cells = conv.kernel_size[0] * conv.kernel_size[1]
    limit = math.sqrt(6 / (conv.in_channels * cells + conv.out_channels // conv.groups * cells))
    nn.init.uniform_(conv.weight, -limit, limit, generator=generator)


class Backbone(nn.Module):
    """The network. `out_levels`, `out_strides` and `out_channels` describe its outputs, finest level first.

    init_cfg: how `init_weights` initialises, as in MMDetection; None for random weights.
    generator: draws the weights of the new network; None for torch's own.
    """

    def __init__(self, init_cfg: Any = None, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.init_cfg = init_cfg
        blocks = {node: block for node, block in enumerate(BLOCKS) if block is not None}
        kinds = {node: block[:2] for node, block in blocks.items()}
        self.is_mobile = kinds[0][1] == "mbconv"
        in_channels = channels(0, "mbconv") if self.is_mobile else 64
        self.stem = ConvNorm(3, in_channels, 3 if self.is_mobile else 7, 2)
        level_before = 1 if self.is_mobile else 2
        for node, (level, kind, parents, _, _) in blocks.items():
            sources = [kinds[parent] for parent in parents]
            if parents:
                in_channels, level_before = width(level, kind), level
            stride = 2 ** (level - level_before)
            self.add_module(f"node{node:02d}", Node(level, kind, in_channels, stride, sources))
            in_channels, level_before = width(level, kind), level
        self.outputs = {block[0]: node for node, block in blocks.items() if block[4]}
        self.out_levels = tuple(sorted(self.outputs))
        self.out_strides = tuple(2**level for level in self.out_levels)
        self.out_channels = (ENDPOINT_CHANNELS,) * len(self.out_levels)
        for level in self.out_levels:
            self.add_module(f"end{level}", ConvNorm(width(*kinds[self.outputs[level]]), ENDPOINT_CHANNELS, 1))
        self.draw_weights(generator)

    def draw_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw all kernels, and reset biases and batch norms."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                draw_kernel(module, generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        for module in self.modules():
            if GLOROT_RESAMPLING and isinstance(module, Resample) and module.is_mobile:
                for i in range(module.halvings):
                    draw_glorot(getattr(module, f"dw{i}").conv, generator)

    def init_weights(self) -> None:
        """Initialise as `init_cfg` says; MMDetection calls it. With a list, each entry is applied in order."""
        if not self.init_cfg:
            self.draw_weights()
            return
        for rule in self.init_cfg if isinstance(self.init_cfg, list | tuple) else [self.init_cfg]:
            if rule["type"] == "Pretrained" and str(rule["checkpoint"]).endswith(".safetensors"):
                from safetensors.torch import load_file

                self.load_state_dict(load_file(rule["checkpoint"]))
            else:
                from mmengine.model import initialize

                initialize(self, rule)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Map (N, 3, H, W) to {level: (N, channels, ceil(H / 2**level), ceil(W / 2**level))}."""
        height, width = images.shape[-2:]
        x = activate(self.stem(images))
        if not self.is_mobile:
            x = max_pool(x, (3, 3), (2, 2))
        features: dict[int, Tensor] = {}
        for node, block in enumerate(BLOCKS):
            if block is None:
                continue
            level, _, parents, merged, _ = block
            inputs = [features[parent] for parent in parents] or [x]
            size = (-(-height // 2**level), -(-width // 2**level))
            x = features[node] = getattr(self, f"node{node:02d}")(inputs, [features[i] for i in merged], size)
        return {
            level: activate(getattr(self, f"end{level}")(features[self.outputs[level]])) for level in self.out_levels
        }
