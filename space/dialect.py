"""The rules in which the two public code bases of SpineNet differ, as one table; a name selects a set of rules.

The code bases compute different numbers from the same weights: their endpoints correlate by 0.77 to 0.98. Released
weights and the paper's figures belong to tensorflow/tpu. Rules that both share are documented beside the code.
"""

from __future__ import annotations

from dataclasses import dataclass

from spinenas.space.errors import UserError, nearest


@dataclass(frozen=True, slots=True)
class Dialect:
    """Rules of one code base.

    Attributes:
        name: name of the code base.
        bn_momentum: weight of a batch in the running statistics (PyTorch's sense: 1 - TensorFlow's momentum).
        bn_eps: constant added to the variance.
        same_padding: strided convolutions use TensorFlow's SAME padding, more after than before; else
            (kernel - 1) / 2 on both sides, as in PyTorch.
        repeated_pools: after its strided convolution, a connection repeats 3x3 stride-2 max-pools; else it has one
            max-pool, of size 3 up to a ratio of 4, and 5 beyond.
        hard_squeeze: squeeze-excite of MBConv uses ReLU and a hard sigmoid; else swish and a sigmoid.
        glorot_resampling: depthwise kernels of mobile connections start Glorot-uniform; else with variance scaling.
        glorot_pyramid: the convolutions of a baseline's pyramid start Glorot-uniform; else with variance scaling.
        pyramid_relu: level 7 of a pyramid is computed from level 6 after a ReLU, whatever the network's activation.
        unused_blocks: rows of the ResNet-type block list that are not built but count in the stochastic-depth rates.
        decay_depthwise: weight decay also applies to depthwise kernels.
        aspect_ratios: width / height of the anchors, in the order of the predictors' channels in released weights.
        decode_plus_one: boxes are decoded in the "+1 pixel" convention, but encoded without it.
        mask_by_value: the box loss covers coordinates whose target is not 0; else all coordinates of positive anchors.
    """

    name: str
    bn_momentum: float
    bn_eps: float
    same_padding: bool
    repeated_pools: bool
    hard_squeeze: bool
    glorot_resampling: bool
    glorot_pyramid: bool
    pyramid_relu: bool
    unused_blocks: int
    decay_depthwise: bool
    aspect_ratios: tuple[float, ...]
    decode_plus_one: bool
    mask_by_value: bool


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            "tensorflow/tpu",
            bn_momentum=0.003,
            bn_eps=1e-4,
            same_padding=False,
            repeated_pools=False,
            hard_squeeze=False,
            glorot_resampling=False,
            glorot_pyramid=True,
            pyramid_relu=True,
            unused_blocks=0,
            decay_depthwise=True,
            aspect_ratios=(1.0, 2.0, 0.5),
            decode_plus_one=True,
            mask_by_value=True,
        ),
        Dialect(
            "tensorflow/models",
            bn_momentum=0.01,
            bn_eps=1e-3,
            same_padding=True,
            repeated_pools=True,
            hard_squeeze=True,
            glorot_resampling=True,
            glorot_pyramid=False,
            pyramid_relu=False,
            unused_blocks=1,  # an output of level 2, not built when the levels start at 3
            decay_depthwise=False,
            aspect_ratios=(0.5, 1.0, 2.0),
            decode_plus_one=False,
            mask_by_value=False,
        ),
    )
}
"""The dialects by name."""


def dialect_named(name: str) -> Dialect:
    """Return a dialect by name. Raises UserError, naming the closest match."""
    if name not in DIALECTS:
        raise UserError(f"dialect is {name!r}{nearest(name, DIALECTS)}")
    return DIALECTS[name]
