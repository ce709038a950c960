"""Exported Python: it needs only torch, keeps the names of weights, and computes the same as the network."""

from __future__ import annotations

import ast
import importlib.resources
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spinenas.results.export.description import ExportDescription, NetworkOptions
from spinenas.results.export.mmdetection import BACKBONE_MODULE, mmdet_files
from spinenas.results.export.python_source import python_module
from spinenas.space.errors import GenotypeError
from spinenas.space.genotype import BlockSpec, Genotype, StemBlock
from spinenas.space.graph import dead_blocks
from spinenas.space.head import HeadConfig
from spinenas.space.network import build_backbone
from spinenas.space.published import PUBLISHED, SPINENET_49
from spinenas.space.scaling import SCALINGS, Scaling
from spinenas.space.search_space import SearchSpace

NARROW = Scaling("narrow", 0.05, 8, 0.5, 1)


def source_of(genotype: Genotype, scaling: Scaling, name: str = "x", options: NetworkOptions | None = None) -> str:
    return python_module(ExportDescription(name, genotype, scaling, options))


def module_of(text: str, name: str = "exported_backbone") -> ModuleType:
    module = ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
    return module


def outputs(network: torch.nn.Module, images: torch.Tensor) -> dict[int, torch.Tensor]:
    with torch.no_grad():
        return network.eval()(images)


def assert_equal_networks(genotype: Genotype, scaling: Scaling, options: NetworkOptions, size: tuple[int, int]) -> None:
    ours = build_backbone(genotype, scaling, **asdict(options))
    theirs = module_of(source_of(genotype, scaling, "x", options)).Backbone()
    generator = torch.Generator().manual_seed(1)
    for name, tensor in ours.state_dict().items():
        if "running" in name or name.endswith("bn.bias"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    theirs.load_state_dict(ours.state_dict())  # names and shapes are the same
    images = torch.randn(1, 3, *size, generator=generator)
    wanted, found = outputs(ours, images), outputs(theirs, images)
    assert theirs.out_levels == ours.levels == tuple(wanted)
    assert theirs.out_channels == (ours.channels,) * len(wanted)
    assert theirs.out_strides == tuple(2**level for level in wanted)
    for level in wanted:
        torch.testing.assert_close(found[level], wanted[level], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (97, 130)])
def test_ten_random_networks_compute_the_same(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for space in (SearchSpace.spinenet49(), SearchSpace.r0_sp53(), SearchSpace.tiny()):
        for _ in range(4):
            assert_equal_networks(space.sample(rng), NARROW, NetworkOptions(), size)


@pytest.mark.parametrize("dialect", ["tensorflow/tpu", "tensorflow/models"])
@pytest.mark.parametrize("activation", ["relu", "swish"])
@pytest.mark.parametrize("name", ["spinenet-49", "spinenet-mobile-49"])
def test_all_dialects_and_kinds_of_block_compute_the_same(dialect: str, activation: str, name: str) -> None:
    scaling = Scaling("deep", 0.05 if "mobile" not in name else 0.3, 8, 0.5, 2)
    options = NetworkOptions(dialect, activation, bn_momentum=0.2, bn_eps=1e-2)
    assert_equal_networks(PUBLISHED[name].genotype, scaling, options, (96, 70))


def test_fifty_random_genotypes_and_all_published_ones_come_back() -> None:
    rng = np.random.default_rng(1)
    space = SearchSpace.spinenet49()
    known = [(space.sample(rng), NARROW) for _ in range(50)]
    models = [model for model in PUBLISHED.values() if isinstance(model.architecture, Genotype)]
    known += [(model.genotype, model.scaling) for model in models]
    assert any(dead_blocks(genotype) for genotype, _ in known)
    for genotype, scaling in known:
        module = module_of(source_of(genotype, scaling))
        with torch.device("meta"):
            shapes = {name: tensor.shape for name, tensor in module.Backbone().state_dict().items()}
        if scaling.filter_scale * scaling.block_repeats > 1:
            continue  # hundreds of megabytes each; their rows are compared above
        ours = build_backbone(genotype, scaling).state_dict()
        assert shapes == {name: tensor.shape for name, tensor in ours.items()}


def test_the_exported_code_is_a_module_of_the_project_that_imports_only_torch() -> None:
    text = importlib.resources.files("spinenas.space").joinpath("network/standalone_backbone.py").read_text()
    description = ExportDescription("spinenet-49", SPINENET_49, SCALINGS["49"], NetworkOptions(), version="0.1.0")
    assert python_module(description) == text
    roots = {
        (node.module or "").split(".")[0] if isinstance(node, ast.ImportFrom) else node.names[0].name.split(".")[0]
        for node in ast.parse(text).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert roots == {"__future__", "math", "torch", "typing"}


@pytest.mark.parametrize("name", ["spinenet-49", "spinenet-mobile-49"])
@pytest.mark.parametrize("dialect", ["tensorflow/tpu", "tensorflow/models"])
def test_an_exported_backbone_begins_with_the_weights_of_ours_for_the_same_seed(name: str, dialect: str) -> None:
    scaling, options = Scaling("small", 0.1, 8, 0.5, 2), NetworkOptions(dialect)
    ours = build_backbone(
        PUBLISHED[name].genotype, scaling, dialect=dialect, generator=torch.Generator().manual_seed(3)
    )
    module = module_of(source_of(PUBLISHED[name].genotype, scaling, options=options))
    theirs = module.Backbone(generator=torch.Generator().manual_seed(3))
    found = theirs.state_dict()
    assert list(found) == list(ours.state_dict())
    assert all(torch.equal(found[key], tensor) for key, tensor in ours.state_dict().items())


def test_an_exported_backbone_draws_its_weights_from_torchs_generator() -> None:
    module = module_of(source_of(SPINENET_49, NARROW))
    torch.manual_seed(5)
    first, other = module.Backbone(), module.Backbone()
    torch.manual_seed(5)
    again = module.Backbone()
    weights = [network.stem.conv.weight for network in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_init_weights_draws_again_or_loads_the_checkpoint_of_init_cfg(tmp_path: Path) -> None:
    module = module_of(source_of(SPINENET_49, NARROW))
    wanted = module.Backbone().state_dict()
    save_file(wanted, tmp_path / "backbone.safetensors")
    for init_cfg in (
        {"type": "Pretrained", "checkpoint": str(tmp_path / "backbone.safetensors")},
        [{"type": "Pretrained", "checkpoint": str(tmp_path / "backbone.safetensors")}],
    ):
        backbone = module.Backbone(init_cfg=init_cfg)
        backbone.init_weights()
        assert all(torch.equal(backbone.state_dict()[key], tensor) for key, tensor in wanted.items())
    drawn = module.Backbone()
    drawn.load_state_dict(wanted)
    drawn.stem.bn.weight.data.fill_(7)
    drawn.init_weights()
    assert not torch.equal(drawn.stem.conv.weight, wanted["stem.conv.weight"])
    assert drawn.stem.bn.weight.max() == 1


def test_other_rules_of_init_cfg_are_left_to_mmengine(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    package, module = ModuleType("mmengine"), ModuleType("mmengine.model")
    module.initialize = lambda network, rule: called.append((network, rule))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mmengine", package)
    monkeypatch.setitem(sys.modules, "mmengine.model", module)
    rule = {"type": "Kaiming", "layer": "Conv2d"}
    backbone = module_of(source_of(SPINENET_49, NARROW)).Backbone(init_cfg=rule)
    backbone.init_weights()
    assert called == [(backbone, rule)]


@pytest.mark.parametrize("name", ['x"; raise SystemExit #', "line\nbreak", "\\", "é\U0001f600", '"""'])
def test_no_part_of_a_name_is_executed(name: str) -> None:
    found = module_of(source_of(SPINENET_49, NARROW, name)).METADATA["name"]
    assert found.encode("utf-16", "surrogatepass") == name.encode("utf-16")


def test_a_genotype_that_cannot_be_built_is_not_exported() -> None:
    mixed = Genotype(
        stem=(StemBlock(2, "bottleneck"), StemBlock(2, "bottleneck")),
        blocks=(BlockSpec(3, "mbconv", (0, 1)), BlockSpec(3, "residual", (0, 1), is_output=True)),
    )
    with pytest.raises(GenotypeError, match="not mixed"):
        source_of(mixed, NARROW)


class Registry:
    """The documented part of MMDetection's registry: a decorator, and building by type."""

    def __init__(self) -> None:
        self.known: dict[str, type] = {}

    def register_module(self) -> Any:
        return lambda cls: self.known.setdefault(cls.__name__, cls)

    def build(self, config: dict[str, Any]) -> Any:
        config = dict(config)
        return self.known[config.pop("type")](**config)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    made = Registry()
    package, module = ModuleType("mmdet"), ModuleType("mmdet.registry")
    module.MODELS = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mmdet", package)
    monkeypatch.setitem(sys.modules, "mmdet.registry", module)
    return made


def test_the_mmdetection_config_builds_the_backbone_that_registers_itself(registry: Registry) -> None:
    files = mmdet_files(ExportDescription("x", SPINENET_49, NARROW))
    config = module_of(files["retinanet_spinenet.py"]).__dict__
    assert config["custom_imports"]["imports"] == [BACKBONE_MODULE]
    assert Path(BACKBONE_MODULE).with_suffix(".py").name in files
    module_of(files[f"{BACKBONE_MODULE}.py"], BACKBONE_MODULE)
    settings = {key: value for key, value in config["model"]["backbone"].items() if key != "_delete_"}
    backbone = registry.build(settings)
    features = outputs(backbone, torch.zeros(1, 3, 128, 128))
    head = config["model"]["bbox_head"]
    assert isinstance(features, tuple)
    assert [128 // feature.shape[-1] for feature in features] == head["anchor_generator"]["strides"]
    assert {feature.shape[1] for feature in features} == {head["in_channels"]} == {8}
    assert config["model"]["neck"] is None
    assert (head["stacked_convs"], head["feat_channels"]) == (4, 256)
    assert head["anchor_generator"]["octave_base_scale"] == 3


def test_a_mmdetection_config_has_the_head_it_is_given_with_ratios_of_height_to_width() -> None:
    given = HeadConfig(2, 32, 1.5, num_scales=2, aspect_ratios=(1.0, 4.0), separable=True)
    description = ExportDescription("x", SPINENET_49, NARROW)
    source = mmdet_files(description, head=given, head_source="a test")["retinanet_spinenet.py"]
    head = module_of(source).__dict__["model"]["bbox_head"]
    anchors = head["anchor_generator"]
    assert (head["stacked_convs"], head["feat_channels"], head["in_channels"]) == (2, 32, 8)
    assert (anchors["octave_base_scale"], anchors["scales_per_octave"], anchors["ratios"]) == (1.5, 2, [0.25, 1.0])
    assert "The head of a test is separable" in source
    assert "Training protocol" not in source


def config_of(genotype: Genotype, **options: Any) -> dict[str, Any]:
    files = mmdet_files(ExportDescription("x", genotype, NARROW, NetworkOptions("tensorflow/models")), **options)
    return module_of(files["retinanet_spinenet.py"]).__dict__


def test_a_mmdetection_config_trains_as_the_paper_does() -> None:
    config = config_of(SPINENET_49)
    steps = {step["type"]: step for step in config["train_pipeline"]}
    assert steps["RandomResize"]["scale"] == steps["RandomCrop"]["crop_size"] == (640, 640)
    assert steps["RandomResize"]["ratio_range"] == (0.5, 2.0)
    assert config["model"]["data_preprocessor"]["pad_size_divisor"] == 640
    assert config["sync_bn"] == "torch"
    assert config["model"]["bbox_head"]["norm_cfg"] == {"type": "BN", "momentum": 0.01, "eps": 1e-3}
    assert config["train_cfg"]["max_epochs"] == 350
    warmup, decay = config["param_scheduler"]
    assert (decay["milestones"], decay["gamma"]) == ([320, 340], 0.1)
    assert warmup["start_factor"] * config["optim_wrapper"]["optimizer"]["lr"] == pytest.approx(0.0067)
    assert config["auto_scale_lr"] == {"enable": True, "base_batch_size": 256}
    assert config["optim_wrapper"]["optimizer"]["weight_decay"] == 4e-5


def test_a_mmdetection_config_of_a_mobile_model_follows_its_protocol_and_size() -> None:
    config = config_of(PUBLISHED["spinenet-mobile-49"].genotype, image_size_pixels=384)
    assert (config["train_cfg"]["max_epochs"], config["param_scheduler"][1]["milestones"]) == (600, [570, 590])
    assert config["optim_wrapper"]["optimizer"]["weight_decay"] == 3e-5
    assert config["test_pipeline"][1]["scale"] == (384, 384)
