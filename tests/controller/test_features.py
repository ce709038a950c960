"""What a backbone says of its outputs, and the adapters of the examples.

torchvision and timm are not installed with the tests: the adapters are tried against the documented interfaces alone.
"""

from __future__ import annotations

import re
import runpy
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from shared_fixtures import REPOSITORY

from spinenas.space.baseline import Baseline
from spinenas.space.network import build_backbone
from spinenas.space.published import MOBILE_49, SPINENET_49
from spinenas.space.scaling import Scaling

NARROW = Scaling("narrow", 0.05, 8, 0.5, 1)
IMAGES = torch.zeros(1, 3, 128, 128)


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(REPOSITORY / "examples" / f"{name}.py"))


@pytest.mark.parametrize("architecture", [SPINENET_49, MOBILE_49, Baseline(50)], ids=str)
def test_feature_info_is_what_comes_out(architecture: Any) -> None:
    scaling = Scaling("narrow", 0.3, 8, 0.5, 1)
    backbone = build_backbone(architecture, scaling).eval()
    with torch.no_grad():
        features = backbone(IMAGES)
    found = [(level, 128 // feature.shape[-1], feature.shape[1]) for level, feature in features.items()]
    assert [tuple(info) for info in backbone.feature_info] == found


def test_the_torchvision_adapter_has_features_by_name_and_out_channels() -> None:
    backbone = build_backbone(SPINENET_49, NARROW).eval()
    adapter = example("torchvision_detector")["TorchvisionBackbone"](backbone)
    assert adapter.out_channels == 8
    with torch.no_grad():
        assert list(adapter(IMAGES)) == ["P3", "P4", "P5", "P6", "P7"]


def test_the_timm_adapter_describes_the_features_it_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    timm, models = ModuleType("timm"), ModuleType("timm.models")
    models.FeatureInfo = lambda described, chosen: [described[index] for index in chosen]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "timm.models", models)
    backbone = build_backbone(SPINENET_49, NARROW).eval()
    adapter = example("timm_features")["TimmFeatures"](backbone, (0, 2))
    with torch.no_grad():
        found = [(feature.shape[1], 128 // feature.shape[-1]) for feature in adapter(IMAGES)]
    assert [(info["num_chs"], info["reduction"]) for info in adapter.feature_info] == found == [(8, 8), (8, 32)]


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_without_the_other_library_an_example_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    file = {"torchvision": "torchvision_detector", "timm": "timm_features"}[name]
    monkeypatch.setattr(sys, "argv", [file])
    with pytest.raises(
        SystemExit, match=f"needs torchvision.* release made for your torch {re.escape(torch.__version__)} "
    ):
        example(file)["main"]()
