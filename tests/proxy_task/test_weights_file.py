"""Weights files: one file rebuilds the network, and any other file is refused in one sentence."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from spinenas.proxy_task.config import DataConfig, EvalConfig
from spinenas.proxy_task.data.synthetic import ensure_built_in
from spinenas.proxy_task.evaluation.evaluate_weights import evaluate_weights
from spinenas.proxy_task.weights.weights_file import (
    DetectorSpec,
    load_detector,
    published_detector,
    read_spec,
    save_detector,
)
from spinenas.search.cli import architecture_argument
from spinenas.search.cli.main import main
from spinenas.search.studies import replay as replay_module
from spinenas.space.errors import UserError
from spinenas.space.head import HeadConfig
from spinenas.space.published import MOBILE_49, PUBLISHED, SPINENET_49, PublishedModel
from spinenas.space.scaling import Scaling

SPEC = DetectorSpec(
    "mine",
    SPINENET_49.text,
    Scaling("test", 0.0625, 8, 0.5, 1),
    HeadConfig(num_convs=1, channels=8, num_scales=1),
    (1, 2, 3, 4),
    ("cross", "disc", "square", "triangle"),
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
    document = {"schema": "spinenas-weights/1"} | asdict(SPEC)
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
    if how == "size":
        document["image_size_pixels"] = 100
    if how == "unknown":
        document["pooling"] = "mean"
    if how == "dialect":
        document["dialect"] = "caffe"
    if how == "missing":
        del tensors["backbone.end3.conv.weight"]
    if how == "shape":
        tensors["backbone.end3.conv.weight"] = torch.zeros(1)
    if how == "extra":
        tensors["more"] = torch.zeros(1)
    save_file(tensors, path, {"spinenas": json.dumps(document)})


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("not a file", "there is no file .*; name a weights file"),
        ("text", "is not a complete safetensors file"),
        ("cut", "is not a complete safetensors file"),
        ("no spec", "has no description of its network"),
        ("genotype", "mine.safetensors describes an invalid network: block 2 has parent 7"),
        ("field", "mine.safetensors describes an invalid network: image_size_pixels: Input should be a valid integer"),
        ("size", "its image size is 100; it must be a multiple of 32, and at least 96"),
        ("unknown", "describes its network with the unknown field 'pooling'"),
        ("dialect", "describes an invalid network: dialect is 'caffe'"),
        ("missing", "it has no backbone.end3.conv.weight; write it again"),
        ("shape", "it has another shape of backbone.end3.conv.weight; write it again"),
        ("extra", "it has the unknown more; write it again"),
    ],
)
def test_an_invalid_weights_file_is_refused_in_one_sentence(tmp_path: Path, how: str, sentence: str) -> None:
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


def test_a_weights_file_is_evaluated_on_val_without_training(tmp_path: Path, data: Path) -> None:
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


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"category_ids": (1, 2, 3, 9)}, "has category id 4, for which these weights have no channel"),
        (
            {"category_names": ("cross", "ring", "square", "triangle")},
            "category id 2 is 'disc' in .* and 'ring' in these weights",
        ),
    ],
)
def test_data_of_other_categories_is_refused(
    tmp_path: Path, data: Path, changes: dict[str, Any], sentence: str
) -> None:
    write(tmp_path / "other.safetensors", replace(SPEC, **changes))
    result = spinenas("replay", tmp_path / "other.safetensors", "--data", data, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert re.search(sentence, result.stderr)
    assert not (tmp_path / "out").exists()


def test_a_class_channel_means_a_category_id_of_the_file(tmp_path: Path, data: Path) -> None:
    """With the ids in another order, the same weights find the same boxes under other names."""
    network, folder = write(tmp_path / "mine.safetensors"), DataConfig(folder=str(data))
    with torch.no_grad():
        network.head["cls"].predict.bias.copy_(torch.linspace(-4.6, -0.5, 15))  # so that classes differ
    turned = replace(SPEC, category_ids=(2, 3, 4, 1), category_names=("disc", "square", "triangle", "cross"))
    straight = evaluate_weights(network, SPEC, folder, EvalConfig(score_threshold=0.001))
    assert straight["AR100"] != evaluate_weights(network, turned, folder, EvalConfig(score_threshold=0.001))["AR100"]


def test_the_batch_size_of_detection_changes_no_figure(tmp_path: Path, data: Path) -> None:
    network, folder = write(tmp_path / "mine.safetensors"), DataConfig(folder=str(data))
    sizes: list[int] = []
    network.register_forward_pre_hook(lambda module, arguments: sizes.append(len(arguments[0])))
    found = [
        evaluate_weights(network, SPEC, folder, EvalConfig(score_threshold=0.001, batch_size=batch_size))
        for batch_size in (4, 64)
    ]
    assert sizes == [4, 2, 6]
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert found[0]["AR100"]


def test_weights_that_are_not_finite_are_refused_on_built_in_data_too(tmp_path: Path, data: Path) -> None:
    small = ("--set", "task.data.built_in_train_images=4", "--set", "task.data.built_in_val_images=6")
    write(tmp_path / "mine.safetensors")
    result = spinenas("replay", tmp_path / "mine.safetensors", *small, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    network = SPEC.build()
    with torch.no_grad():
        network.backbone.end3.conv.weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    save_detector(tmp_path / "nan.safetensors", network, SPEC)
    result = spinenas("replay", tmp_path / "nan.safetensors", *small, "--out", tmp_path / "out-nan")
    assert (result.exit_code, "with these weights the trained network predicts" in result.stderr) == (1, True)
    assert not (tmp_path / "out-nan").exists()


def test_an_output_folder_that_cannot_be_made_is_refused_before_the_work(tmp_path: Path) -> None:
    write(tmp_path / "mine.safetensors")
    (tmp_path / "file").write_text("")
    result = spinenas("replay", tmp_path / "mine.safetensors", "--out", tmp_path / "file" / "out")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "cannot make the folder" in result.stderr


def test_a_weights_file_is_shown_and_takes_no_training_options(tmp_path: Path) -> None:
    write(tmp_path / "mine.safetensors", replace(SPEC, name="spinenet-49"))
    shown = spinenas("show", tmp_path / "mine.safetensors")
    assert shown.exit_code == 0, shown.output
    assert "RetinaNet at scaling test, 128 px" in shown.stdout
    assert "published" not in shown.stdout, "a name alone makes no published model"
    for words in (("--seed", 3), ("--set", "task.train.epochs=3")):
        result = spinenas("replay", tmp_path / "mine.safetensors", *words, "--out", tmp_path / "out")
        assert (result.exit_code, "a weights file is" in result.stderr) == (2, True)


def test_weights_of_a_published_detector_are_recognised(tmp_path: Path) -> None:
    model = PUBLISHED["spinenet-mobile-49xs"]
    spec = published_detector(model, dialect="tensorflow/tpu", activation="swish", bn_eps=1e-3)
    write(tmp_path / "released.safetensors", replace(spec, name="renamed"))
    shown = spinenas("show", tmp_path / "released.safetensors")
    assert "no parameter count or multiply-adds were published (architecture: tensorflow/models" in shown.stdout, (
        shown.output
    )


@pytest.mark.parametrize(
    ("activation", "published"),
    [
        ("relu", {"published, protocol A": 0.408, "published, protocol B": 0.428}),
        ("swish", {"published, protocol C": 0.443}),
    ],
)
def test_a_replayed_weights_file_stands_beside_the_published_aps_of_its_activation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, activation: str, published: dict[str, float]
) -> None:
    model = PublishedModel(
        name="small",
        architecture=SPINENET_49,
        scaling=SPEC.scaling,
        image_size_pixels=128,
        head_convs=1,
        head_channels=8,
        aps=PUBLISHED["spinenet-49"].aps,
        source="spinenet-49, but small",
    )
    write(tmp_path / "mine.safetensors", published_detector(model, dialect="tensorflow/tpu", activation=activation))
    monkeypatch.setattr(architecture_argument, "PUBLISHED", {"small": model})
    monkeypatch.setattr(replay_module, "replay_weights", lambda path, task, *, out: {"AP": 0.4, "AP50": 0.6})
    result = spinenas("replay", tmp_path / "mine.safetensors", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    ap, ap50 = json.loads(result.stdout)
    assert ap == {"metric": "AP", "val": 0.4} | published
    assert ap50 == {"metric": "AP50", "val": 0.6} | dict.fromkeys(published)
