"""The published architectures and what their authors report of them, each figure with its source.

Sources: SpineNet (Du et al., CVPR 2020, arXiv 1912.05027) and the model zoo of tensorflow/tpu.
"""

from __future__ import annotations

from dataclasses import dataclass

from spinenas.space.errors import UserError, nearest
from spinenas.space.genotype import Genotype
from spinenas.space.scaling import SCALINGS, Scaling

SPINENET_49 = Genotype.from_text(
    "2b 2b / 2b0,1 4r0,1 3b2,3 4b2,4 6r3,5 4b3,5 5r6,7 7r6,8 5b8,9 5b8,10 4b5,10! 3b4,10! 5b7,12! 7b5,14! 6b12,14!"
)
"""The block graph of every ResNet-type SpineNet (tensorflow/tpu `spinenet.py`; SpineNet, Figure 4 d)."""

R0_SP53 = Genotype.from_text(
    "2b 2b / 2b0,1 3b0,1 3b2,3 4b2,4 4b3,5 3b5,6 5b4,7 4b4,8 4b8,9 4b8,10 3b4,10! 4b6,7! 5b8,13! 7b6,9! 6b7,9!"
)
"""Permutation and connections searched, ResNet-50's blocks kept (SpineNet, Figure 4)."""


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A published RetinaNet on COCO.

    Attributes:
        name: as on the command line.
        genotype, scaling: its backbone.
        image_size_pixels: side of the square input of the published figures.
        head_convs, head_channels: of each tower of its head.
        params_millions, madds_billions: as printed; None where nothing is published for exactly this model.
        ap: COCO box AP, 0 to 1; None where not published.
        source: where the figures are from, the split and the training protocol.
    """

    name: str
    genotype: Genotype
    scaling: Scaling
    image_size_pixels: int
    head_convs: int
    head_channels: int
    params_millions: float | None
    madds_billions: float | None
    ap: float | None
    source: str


_TABLE = "SpineNet, RetinaNet results on COCO test-dev, protocol C"

PUBLISHED = {
    model.name: model
    for model in (
        PublishedModel("spinenet-49s", SPINENET_49, SCALINGS["49S"], 640, 4, 128, 12.0, 33.8, 0.415, _TABLE),
        PublishedModel(
            "spinenet-49s-code",
            SPINENET_49,
            SCALINGS["49S-code"],
            640,
            4,
            128,
            None,
            None,
            None,
            "tensorflow/tpu `spinenet.py`: endpoints of 128, which is not what the released weights have",
        ),
        PublishedModel("spinenet-49", SPINENET_49, SCALINGS["49"], 640, 4, 256, 28.5, 85.4, 0.443, _TABLE),
        PublishedModel("spinenet-96", SPINENET_49, SCALINGS["96"], 1024, 4, 256, 43.0, 265.4, 0.486, _TABLE),
        PublishedModel("spinenet-143", SPINENET_49, SCALINGS["143"], 1280, 4, 256, 66.9, 524.4, 0.507, _TABLE),
        PublishedModel(
            "spinenet-143l",
            SPINENET_49,
            SCALINGS["143L"],
            1280,
            4,
            256,
            None,
            None,
            None,
            "tensorflow/models `spinenet.py`; no RetinaNet results published",
        ),
        PublishedModel("spinenet-190", SPINENET_49, SCALINGS["190"], 1280, 7, 512, 163.6, 1885.0, 0.521, _TABLE),
        PublishedModel(
            "r0-sp53",
            R0_SP53,
            SCALINGS["49"],
            640,
            4,
            256,
            None,
            None,
            0.407,
            "SpineNet, Figure 4, RetinaNet on COCO val2017, protocol A",
        ),
    )
}
"""Published models by name."""


def published(name: str) -> PublishedModel:
    """Return a published model by name. Raises UserError, naming the nearest ones."""
    if name not in PUBLISHED:
        raise UserError(f"no published model is called {name!r}{nearest(name, PUBLISHED)}")
    return PUBLISHED[name]
