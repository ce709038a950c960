"""Weights files: one file rebuilds the network, and whatever is no weights file gets a sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from spinenas.proxy_task.config import DataConfig, EvalConfig, HeadConfig
from spinenas.proxy_task.evaluate_weights import evaluate_weights
from spinenas.proxy_task.synthetic import ensure_built_in
from spinenas.proxy_task.weights_file import DetectorSpec, load_detector, published_detector, read_spec, save_detector
from spinenas.search.cli import main
from spinenas.space.errors import UserError
from spinenas.space.published import MOBILE_49, PUBLISHED, SPINENET_49
from spinenas.space.scaling import Scaling

SPEC = DetectorSpec(
    "mine",
    SPINENET_49.text,
    Scaling("test", 0.0625, 8, 0.5, 1),
    HeadConfig(num_convs=1, channels=8, num_scales=1),
    (1, 2, 3, 4),
    128,
    activation="swish",
    bn_eps=1e-3,
)


def write(path: Path, spec: DetectorSpec = SPEC, seed: int = 3) -> Any:
    network = spec.build(generator=torch.Generator().manual_seed(seed))
    save_detector(path, network, spec)
    return network.eval()


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        replace(SPEC, architecture="r50-fpn", dialect="tensorflow/models"),
        replace(SPEC, architecture=MOBILE_49.text, head=HeadConfig(num_convs=1, channels=8, separable=True)),
    ],
    ids=["genotype", "baseline", "mobile"],
)
def test_one_file_is_enough_to_rebuild_the_network(tmp_path: Path, spec: DetectorSpec) -> None:
    network = write(tmp_path / "mine.safetensors", spec)
    again, read = load_detector(tmp_path / "mine.safetensors")
    assert read == spec == read_spec(tmp_path / "mine.safetensors")
    images = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for ours, theirs in zip(again(images), network(images), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_its_own_head_and_anchors(name: str) -> None:
    spec = published_detector(PUBLISHED[name], dialect="tensorflow/models", activation="relu")
    assert spec.architecture == PUBLISHED[name].architecture.text
    assert (spec.head.anchor_scale, spec.head.aspect_ratios) == (PUBLISHED[name].anchor_scale, (0.5, 1.0, 2.0))
    assert spec.category_ids == tuple(range(1, 91))


def broken(path: Path, how: str) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in SPEC.build().state_dict().items()}
    document = {"schema": "spinenas-weights/1"} | json.loads(json.dumps(_asdict(SPEC)))
    if how == "not a file":
        return
    if how == "text":
        path.write_text("{}")
        return
    if how == "cut":
        write(path)
        path.write_bytes(path.read_bytes()[:-100])
        return
    if how == "no spec":
        save_file(tensors, path)
        return
    if how == "genotype":
        document["architecture"] = "2b 2b / 3b0,7!"
    if how == "field":
        document["image_size_pixels"] = "large"
    if how == "missing":
        del tensors["backbone.end3.conv.weight"]
    if how == "shape":
        tensors["backbone.end3.conv.weight"] = torch.zeros(1)
    if how == "extra":
        tensors["more"] = torch.zeros(1)
    save_file(tensors, path, {"spinenas": json.dumps(document)})


def _asdict(spec: DetectorSpec) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(spec)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("not a file", "there is no file .*; name a weights file"),
        ("text", "is no whole safetensors file"),
        ("cut", "is no whole safetensors file"),
        ("no spec", "does not say what network its weights are of"),
        ("genotype", "block 2 has parent 7"),
        ("field", "describes no network: image_size_pixels"),
        ("missing", "it has no backbone.end3.conv.weight; write it again"),
        ("shape", "it has another shape of backbone.end3.conv.weight; write it again"),
        ("extra", "it has the unknown more; write it again"),
    ],
)
def test_what_is_no_weights_file_is_answered_with_a_sentence(tmp_path: Path, how: str, sentence: str) -> None:
    path = tmp_path / "mine.safetensors"
    broken(path, how)
    with pytest.raises(UserError, match=sentence):
        load_detector(path)


def spinenas(*words: object) -> Any:
    return CliRunner().invoke(main, [str(word) for word in words], prog_name="spinenas")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPINENAS_CACHE", str(tmp_path / "cache"))
    return ensure_built_in(tmp_path / "cache", 4, 6, 128)


def test_a_weights_file_is_measured_on_val_and_nothing_is_trained(tmp_path: Path, data: Path) -> None:
    write(tmp_path / "mine.safetensors")
    out = tmp_path / "out"
    result = spinenas("replay", tmp_path / "mine.safetensors", "--data", data, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    rows = {row["metric"]: row for row in json.loads(result.stdout)}
    network, spec = load_detector(tmp_path / "mine.safetensors")
    expected = evaluate_weights(network, spec, DataConfig(folder=str(data)), EvalConfig())
    assert {name: row["val"] for name, row in rows.items()} == expected
    kept = json.loads((out / "replay.json").read_text())
    assert (kept["architecture"], kept["val"]) == ("mine", expected)
    again = spinenas("replay", tmp_path / "mine.safetensors", "--data", data, "--out", out)
    assert (again.exit_code, "not an empty folder" in again.stderr) == (1, True)


def test_a_class_channel_is_a_category_id_of_the_file(tmp_path: Path, data: Path) -> None:
    """Weights that know other ids are refused; among more ids, the data's own are found."""
    write(tmp_path / "other.safetensors", replace(SPEC, category_ids=(1, 2, 3, 9)))
    result = spinenas("replay", tmp_path / "other.safetensors", "--data", data, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "has category id 4, which these weights have no channel for" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_weights_file_is_shown_and_takes_no_training_options(tmp_path: Path) -> None:
    write(tmp_path / "mine.safetensors", replace(SPEC, name="spinenet-49"))
    shown = spinenas("show", tmp_path / "mine.safetensors")
    assert shown.exit_code == 0, shown.output
    assert "RetinaNet at scaling test, 128 px" in shown.stdout
    assert "published: 28.5 M parameters, 85.4 G multiply-adds, AP 0.443" in shown.stdout
    result = spinenas("replay", tmp_path / "mine.safetensors", "--seed", 3, "--out", tmp_path / "out")
    assert (result.exit_code, "leave out --preset, --seed and --width" in result.stderr) == (2, True)
