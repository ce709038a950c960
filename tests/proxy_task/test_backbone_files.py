"""Backbone files, read by other programs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from spinenas.proxy_task.weights.backbone_files import (
    OPSET,
    check_onnx,
    initial_backbone,
    load_backbone,
    onnx_bytes,
    read_backbone_description,
    read_onnx_description,
    safetensors_bytes,
)
from spinenas.results.export.description import ExportDescription, NetworkOptions
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.network import build_backbone
from spinenas.space.published import SPINENET_49
from spinenas.space.scaling import SCALINGS, Scaling
from spinenas.space.search_space import SearchSpace

NARROW = Scaling("narrow", 0.05, 8, 0.5, 1)
NETWORK = ExportDescription(
    "spinenet-49",
    SPINENET_49,
    NARROW,
    NetworkOptions("tensorflow/models", "swish", bn_momentum=0.1),
    weights="random",
    run="runs/mine",
    trial=3,
)


def assert_onnx_equals(genotype: Genotype, size: int) -> None:
    import onnx
    import onnxruntime

    description = ExportDescription("x", genotype, NARROW)
    backbone = initial_backbone(description)
    content = onnx_bytes(backbone, size, description)
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
    found = load(safetensors_bytes(backbone, NETWORK))
    state = backbone.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_a_backbone_with_initial_weights_has_the_options_it_is_given() -> None:
    options = NetworkOptions("tensorflow/models", "swish")
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = initial_backbone(ExportDescription("x", SPINENET_49, NARROW, options))(images)
        wanted = build_backbone(SPINENET_49, NARROW, dialect=options.dialect, activation="swish").eval()(images)
        other = initial_backbone(ExportDescription("x", SPINENET_49, NARROW))(images)
    assert all(torch.equal(found[level], wanted[level]) for level in wanted)
    assert not torch.equal(found[3], other[3])


def test_the_backbone_of_a_weights_file_has_its_weights(tmp_path: Path) -> None:
    from spinenas.proxy_task.weights.weights_file import published_detector, save_detector
    from spinenas.space.published import PUBLISHED

    model = PUBLISHED["spinenet-mobile-49xs"]
    spec = published_detector(model, dialect="tensorflow/models", activation="swish")
    network = spec.build(generator=torch.Generator().manual_seed(7))
    save_detector(tmp_path / "a.safetensors", network, spec)
    found = load_backbone(tmp_path / "a.safetensors")
    assert not found.training
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)


def test_an_exported_backbone_comes_back_with_its_description_and_weights(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    backbone = initial_backbone(NETWORK)
    backbone.stem.conv.weight.data.fill_(0.5)
    path.write_bytes(safetensors_bytes(backbone, NETWORK))
    assert read_backbone_description(path) == NETWORK
    again = load_backbone(path)
    assert not again.training
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in backbone.state_dict().items())


def test_the_description_in_an_onnx_file_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    genotype = SearchSpace.tiny().sample(np.random.default_rng(0))
    description = replace(NETWORK, architecture=genotype)
    path.write_bytes(onnx_bytes(initial_backbone(description), 64, description))
    assert read_onnx_description(path) == description


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no model", "a.onnx is not an ONNX model; name another file"),
        (b"", "a.onnx has no description of a network"),
        (None, "cannot read .*a.onnx: No such file or directory; name an exported file"),
    ],
)
def test_another_file_than_an_exported_onnx_model_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_onnx_description(path)


def test_a_backbone_without_a_valid_description_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = initial_backbone(NETWORK).state_dict()
    path.write_bytes(save(tensors))
    with pytest.raises(UserError, match="without a description of the network, as earlier versions wrote it"):
        load_backbone(path)
    path.write_bytes(save(tensors, {"spinenas": json.dumps(NETWORK.to_json() | {"weights": "good"})}))
    with pytest.raises(UserError, match=r"a\.safetensors: its metadata has weights 'good'"):
        load_backbone(path)
    path.write_bytes(save(tensors, {"spinenas": replace(NETWORK, scaling=SCALINGS["49"]).to_text()}))
    with pytest.raises(UserError, match="does not hold the network that it describes"):
        load_backbone(path)
