"""Backbone files, read by other programs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load

from spinenas.proxy_task.weights.backbone_files import OPSET, backbone_of, check_onnx, onnx_bytes, safetensors_bytes
from spinenas.results.export.python_source import NetworkOptions
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.network import build_backbone
from spinenas.space.published import SPINENET_49
from spinenas.space.scaling import Scaling
from spinenas.space.search_space import SearchSpace

NARROW = Scaling("narrow", 0.05, 8, 0.5, 1)


def assert_onnx_equals(genotype: Genotype, size: int) -> None:
    import onnx
    import onnxruntime

    backbone = backbone_of(genotype, NARROW, None)
    content = onnx_bytes(backbone, size)
    assert {entry.version for entry in onnx.load_from_string(content).opset_import if entry.domain == ""} == {OPSET}
    session = onnxruntime.InferenceSession(content)
    assert [output.name for output in session.get_outputs()] == [f"P{level}" for level in backbone.levels]
    for batch in (1, 3):
        images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            wanted = backbone(images)
        found = session.run(None, {"images": images.numpy()})
        for ours, theirs in zip(wanted.values(), found, strict=True):
            np.testing.assert_allclose(theirs, ours.numpy(), rtol=1e-4, atol=1e-4)


def test_onnxruntime_computes_the_same_from_an_onnx_file() -> None:
    assert_onnx_equals(SearchSpace.tiny().sample(np.random.default_rng(0)), 64)


@pytest.mark.slow
def test_onnxruntime_computes_the_same_for_ten_networks() -> None:
    rng = np.random.default_rng(1)
    for genotype in (SPINENET_49, *(SearchSpace.spinenet49().sample(rng) for _ in range(9))):
        assert_onnx_equals(genotype, 96)


def test_without_the_extra_one_sentence_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install 'spinenas\[onnx\]'"):
        check_onnx()


def test_safetensors_are_the_state_dict() -> None:
    backbone = build_backbone(SPINENET_49, NARROW)
    found = load(safetensors_bytes(backbone))
    state = backbone.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_a_backbone_with_initial_weights_has_the_options_it_is_given() -> None:
    options = NetworkOptions("tensorflow/models", "swish")
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = backbone_of(SPINENET_49, NARROW, None, options)(images)
        wanted = build_backbone(SPINENET_49, NARROW, dialect=options.dialect, activation="swish").eval()(images)
        other = backbone_of(SPINENET_49, NARROW, None)(images)
    assert all(torch.equal(found[level], wanted[level]) for level in wanted)
    assert not torch.equal(found[3], other[3])


def test_the_backbone_of_a_weights_file_has_its_weights(tmp_path: Path) -> None:
    from spinenas.proxy_task.weights.weights_file import published_detector, save_detector
    from spinenas.space.published import PUBLISHED

    model = PUBLISHED["spinenet-mobile-49xs"]
    spec = published_detector(model, dialect="tensorflow/models", activation="swish")
    network = spec.build(generator=torch.Generator().manual_seed(7))
    save_detector(tmp_path / "a.safetensors", network, spec)
    found = backbone_of(model.architecture, model.scaling, tmp_path / "a.safetensors")
    assert not found.training
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)
