"""The published architectures and the figures that their authors report, each AP with its training protocol and source.

Sources: SpineNet (Du et al., CVPR 2020, arXiv 1912.05027) and the model zoo of tensorflow/tpu. A figure that nobody
published is None or absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spinenas.space.baseline import Architecture, Baseline, genotype_of
from spinenas.space.cost import Cost, retinanet_cost
from spinenas.space.errors import UserError, nearest
from spinenas.space.genotype import Genotype
from spinenas.space.scaling import BASELINE_SCALING, SCALINGS, Scaling

SPINENET_49 = Genotype.from_text(
    "2b 2b / 2b0,1 4r0,1 3b2,3 4b2,4 6r3,5 4b3,5 5r6,7 7r6,8 5b8,9 5b8,10 4b5,10! 3b4,10! 5b7,12! 7b5,14! 6b12,14!"
)
"""The block graph of every ResNet-type SpineNet (tensorflow/tpu `spinenet.py`; SpineNet, Figure 4 d)."""

R0_SP53 = Genotype.from_text(
    "2b 2b / 2b0,1 3b0,1 3b2,3 4b2,4 4b3,5 3b5,6 5b4,7 4b4,8 4b8,9 4b8,10 3b4,10! 4b6,7! 5b8,13! 7b6,9! 6b7,9!"
)
"""Permutation and connections searched, ResNet-50's blocks kept (SpineNet, Figure 4)."""


R23_SP30 = Genotype.from_text(
    "2b 2b 3b 3b 4b 4b 5b / 4b5,6 4b5,6 4b7,8 3b8,9 2b9,10 4b5,9! 3b9,10! 5b9,10! 7b11,13! 6b9,14!"
)
"""Half of ResNet-50 as a stem, and a scale-permuted part after it (SpineNet, Figure 4)."""

MOBILE_49 = Genotype.from_text(
    "1m 2m / 2m0,1 2m1,2 4m1,2 3m3,4 4m3,5 6m4,6 4m4,6 5m7,8 7m7,9 5m9,10 5m9,11 "
    "4m6,11! 3m5,11! 5m8,13! 7m6,15! 6m13,15!"
)
"""SpineNet-49's connections with MBConv blocks (SpineNet, appendix A; tensorflow/tpu `spinenet_mbconv.py`)."""


PROTOCOLS = {
    "A": "250 epochs, scale jitter 0.8 to 1.2, ReLU, DropBlock",
    "B": "350 epochs, scale jitter 0.5 to 2.0, ReLU",
    "C": "500 epochs (SpineNet-190: 400), scale jitter 0.5 to 2.0 (143 and 190: 0.1 to 1.9), swish, stochastic depth",
    "mobile": "600 epochs; tensorflow/tpu: scale jitter 0.5 to 2.0, swish; tensorflow/models: hard swish",
}
"""Training protocols of the published figures (SpineNet, section 4.1; configurations of both code bases)."""

VAL, TEST_DEV = "val2017", "test-dev"


@dataclass(frozen=True, slots=True)
class PublishedAP:
    """A COCO box AP as printed.

    Attributes:
        ap: 0 to 1.
        split: VAL or TEST_DEV.
        protocol: a name in PROTOCOLS. Only APs of one protocol and split can be compared.
        activation: "relu", "swish" or "hard swish", with which the network was trained.
        source: where it is printed.
    """

    ap: float
    split: str
    protocol: str
    activation: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedModel:
    """A published RetinaNet on COCO: a genotype at a scaling, or a ResNet-FPN baseline.

    Attributes:
        name: name on the command line.
        architecture, scaling: the backbone.
        image_size_pixels: side of the square input of the published figures.
        head_convs, head_channels: number of convolutions in each tower of the head, and their width.
        separable_head: whether these are depthwise and 1x1.
        anchor_scale: side of the smallest anchor in strides (SpineNet, section 4.1).
        params_millions, madds_billions: figures as printed; None where nothing is published for exactly this model.
        aps: published APs, by split and from the shortest protocol to the longest.
        baseline: name of the ResNet-FPN that the paper compares it with.
        source: source of the architecture and its size, with what is our own choice.
    """

    name: str
    architecture: Architecture
    scaling: Scaling
    image_size_pixels: int
    head_convs: int = 4
    head_channels: int = 256
    separable_head: bool = False
    anchor_scale: float = 3.0
    params_millions: float | None = None
    madds_billions: float | None = None
    aps: tuple[PublishedAP, ...] = ()
    baseline: str | None = None
    source: str

    @property
    def genotype(self) -> Genotype:
        """The genotype. Raises UserError for a baseline."""
        return genotype_of(self.architecture, self.name)

    def aps_with(self, activation: str) -> dict[str, float]:
        """Return the published APs on val2017 by protocol, of networks trained with an activation."""
        return {ap.protocol: ap.ap for ap in self.aps if ap.split == VAL and ap.activation == activation}

    @property
    def detector(self) -> dict[str, Any]:
        """Scaling, image size and head as arguments of `cost_by_part`."""
        return {
            "scaling": self.scaling,
            "image_size": self.image_size_pixels,
            "head_convs": self.head_convs,
            "head_channels": self.head_channels,
            "separable_head": self.separable_head,
        }

    def cost(self) -> Cost:
        """Cost of the detector at the published image size with 91 class channels."""
        return retinanet_cost(self.architecture, **self.detector)


_PAPER = "SpineNet"
_ZOO = "model zoo of tensorflow/tpu"
_TF_MODELS = "configuration file of tensorflow/models"
_SIZES = f"{_PAPER}, RetinaNet results; {_ZOO}"


def _aps(
    *,
    a: float | None = None,
    b: float | None = None,
    c: float | None = None,
    c_test_dev: float | None = None,
) -> tuple[PublishedAP, ...]:
    """APs of the paper's protocols; those of protocol C on val2017 are from the model zoo."""
    found = (
        (a, VAL, "A", "relu", f"{_PAPER}, Figure 4"),
        (b, VAL, "B", "relu", f"{_PAPER}, RetinaNet results on val2017"),
        (c, VAL, "C", "swish", _ZOO),
        (c_test_dev, TEST_DEV, "C", "swish", f"{_PAPER}, RetinaNet results on test-dev"),
    )
    return tuple(PublishedAP(ap, *facts) for ap, *facts in found if ap is not None)


def _spinenet(key: str, size: int, **figures: Any) -> PublishedModel:
    """A model at a published scaling; its name and genotype are SpineNet's unless `figures` has others."""
    figures = {"name": f"spinenet-{key.lower()}", "architecture": SPINENET_49, **figures}
    return PublishedModel(scaling=SCALINGS[key], image_size_pixels=size, **figures)


def _mobile(key: str, size: int, head_channels: int, **figures: Any) -> PublishedModel:
    return _spinenet(key, size, architecture=MOBILE_49, head_channels=head_channels, separable_head=True, **figures)


def _resnet_fpn(depth: int, size: int, **figures: Any) -> PublishedModel:
    return PublishedModel(
        name=Baseline(depth).text,
        architecture=Baseline(depth),
        scaling=BASELINE_SCALING,
        image_size_pixels=size,
        anchor_scale=4.0,
        source=f"{_PAPER}, RetinaNet results on val2017",
        **figures,
    )


PUBLISHED = {
    model.name: model
    for model in (
        _spinenet(
            "49S",
            640,
            head_channels=128,
            params_millions=12.0,
            madds_billions=33.8,
            aps=_aps(c=0.415, c_test_dev=0.415),
            source=f"{_SIZES}; endpoints of 256 channels as in the released weights",
        ),
        _spinenet(
            "49S-code",
            640,
            head_channels=128,
            source="tensorflow/tpu `spinenet.py`: endpoints of 128 channels, unlike the released weights",
        ),
        _spinenet(
            "49",
            640,
            params_millions=28.5,
            madds_billions=85.4,
            aps=_aps(a=0.408, b=0.428, c=0.443, c_test_dev=0.443),
            baseline="r50-fpn",
            source=_SIZES,
        ),
        _spinenet(
            "49",
            896,
            name="spinenet-49-896",
            params_millions=28.5,
            madds_billions=167.4,
            aps=_aps(b=0.453, c_test_dev=0.467),
            source=_SIZES,
        ),
        _spinenet(
            "96",
            1024,
            params_millions=43.0,
            madds_billions=265.4,
            aps=_aps(b=0.471, c=0.485, c_test_dev=0.486),
            baseline="r101-fpn",
            source=_SIZES,
        ),
        _spinenet(
            "143",
            1280,
            anchor_scale=4.0,
            params_millions=66.9,
            madds_billions=524.4,
            aps=_aps(b=0.481, c=0.506, c_test_dev=0.507),
            baseline="r152-fpn",
            source=_SIZES,
        ),
        _spinenet(
            "143L",
            1280,
            anchor_scale=4.0,
            source="tensorflow/models `spinenet.py`; no RetinaNet results published",
        ),
        _spinenet(
            "190",
            1280,
            head_convs=7,
            head_channels=512,
            anchor_scale=4.0,
            params_millions=163.6,
            madds_billions=1885.0,
            aps=_aps(c=0.52, c_test_dev=0.521),
            source=_SIZES,
        ),
        _mobile(
            "mobile-49XS",
            256,
            24,
            source="tensorflow/models `spinenet_mobile.py`, `coco_spinenet49xs_mobile_tpu.yaml`",
        ),
        _mobile(
            "mobile-49S",
            384,
            40,
            aps=(PublishedAP(0.235, VAL, "mobile", "hard swish", f"{_TF_MODELS}, trained with hard swish"),),
            source="tensorflow/models `spinenet_mobile.py`, `coco_spinenet49s_mobile_tpu.yaml`",
        ),
        _mobile(
            "mobile-49",
            384,
            48,
            params_millions=2.34,
            madds_billions=1.0,
            aps=(PublishedAP(0.286, VAL, "mobile", "swish", _ZOO),),
            source=_ZOO,
        ),
        _spinenet(
            "49",
            640,
            name="r0-sp53",
            architecture=R0_SP53,
            aps=_aps(a=0.407),
            baseline="r50-fpn",
            source=f"{_PAPER}, Figure 4",
        ),
        _spinenet(
            "49",
            640,
            name="r23-sp30",
            architecture=R23_SP30,
            aps=_aps(a=0.396),
            baseline="r50-fpn",
            source=f"{_PAPER}, Figure 4; the width of its last stem block, 256 here, is not published",
        ),
        _resnet_fpn(50, 640, params_millions=34.0, madds_billions=97.0, aps=_aps(a=0.378, b=0.404)),
        _resnet_fpn(101, 1024, params_millions=53.1, madds_billions=325.9, aps=_aps(b=0.439)),
        _resnet_fpn(152, 1280, params_millions=68.7, madds_billions=630.5, aps=_aps(b=0.451)),
    )
}
"""Published models by name."""


def published(name: str) -> PublishedModel:
    """Return a published model by name. Raises UserError, naming the nearest ones."""
    if name not in PUBLISHED:
        raise UserError(f"no published model is called {name!r}{nearest(name, PUBLISHED)}")
    return PUBLISHED[name]
