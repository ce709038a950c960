"""Training and inference each compile to one graph, and candidates share compiled blocks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from spinenas.proxy_task.config import EvalConfig
from spinenas.proxy_task.detector.losses import detection_loss
from spinenas.proxy_task.detector.matching import anchor_targets
from spinenas.proxy_task.detector.retinanet import RetinaNet, Tower, build_retinanet
from spinenas.proxy_task.evaluation.detect import postprocess
from spinenas.proxy_task.training import compilation
from spinenas.proxy_task.training.augment import augment_batch, draw_crop, normalize_letterboxed, stack_crops
from spinenas.proxy_task.training.compilation import compile_network, compile_seconds, prepare_compilation, regions
from spinenas.space import SearchSpace, sample_without_dead_blocks
from spinenas.space.baseline import Architecture
from spinenas.space.head import HeadConfig
from spinenas.space.network.blocks import Bottleneck, Residual
from spinenas.space.network.layers import ConvNorm
from spinenas.space.network.resample import Resample
from spinenas.space.published import SPINENET_49
from spinenas.space.random_streams import generator
from spinenas.space.scaling import Scaling

SIZE = 96


@pytest.fixture(autouse=True)
def forgetting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clear compiled programs before and after each test."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    prepare_compilation(tmp_path)
    yield
    torch._dynamo.reset()  # type: ignore[no-untyped-call]


def small(architecture: Architecture = SPINENET_49) -> RetinaNet:
    head = HeadConfig(num_convs=1, channels=8, anchor_scale=2.0, num_scales=1)
    return build_retinanet(architecture, Scaling("test", 0.125, 8, 1.0, 1), head, class_channels=4)


def drawn(seed: int, num_boxes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A batch of two images, with some boxes in the 8 places for them."""
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, size=(2, SIZE, SIZE, 3), dtype=np.uint8))
    windows = [draw_crop((SIZE, 80), SIZE, rng, flip=True, scale_jitter=(0.7, 1.4)) for _ in range(2)]
    boxes, labels = torch.zeros(2, 8, 4), torch.zeros(2, 8, dtype=torch.long)
    corners = torch.from_numpy(rng.uniform(0, 50, size=(2, num_boxes, 2))).float()
    boxes[:, :num_boxes] = torch.cat([corners, corners + 20], dim=-1)
    labels[:, :num_boxes] = 1
    return images, stack_crops(windows), boxes, labels


def test_augmentation_matching_forward_and_losses_are_one_graph_for_any_images() -> None:
    network = small()
    anchors = network.anchors((SIZE, SIZE))

    def loss_of(images: Tensor, windows: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        classes, box_targets = anchor_targets(anchors, boxes, labels)
        logits, deltas = network(augment_batch(images, windows))
        total, _, _ = detection_loss(
            logits, deltas, classes, box_targets, alpha=0.25, gamma=1.5, delta=0.1, box_weight=10.0
        )
        return total

    counter = CompileCounterWithBackend("aot_eager")  # type: ignore[no-untyped-call]
    compiled = torch.compile(loss_of, backend=counter, fullgraph=True, dynamic=False)
    for seed, num_boxes in ((1, 1), (2, 8), (3, 0), (4, 5)):
        batch = drawn(seed, num_boxes)
        gradients = []
        for function in (loss_of, compiled):
            network.zero_grad()
            loss = function(*batch)
            loss.backward()
            gradients.append([loss.detach(), *(parameter.grad for parameter in network.parameters())])
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1


def test_inference_with_nms_is_one_graph() -> None:
    network = small().eval()
    anchors = network.anchors((SIZE, SIZE))
    config = EvalConfig(pre_nms_top=50, max_detections=5, score_threshold=0.0, plus_one_decoding=False)

    @torch.no_grad()
    def found(images: Tensor, contents: Tensor) -> tuple[Tensor, ...]:
        logits, deltas = network(normalize_letterboxed(images, contents))
        return postprocess(logits, deltas, anchors, contents.float(), config)

    counter = CompileCounterWithBackend("eager")  # type: ignore[no-untyped-call]
    compiled = torch.compile(found, backend=counter, fullgraph=True, dynamic=False)
    for seed in range(3):
        images, contents = drawn(seed, 0)[0], torch.tensor([[96, 60 + seed], [50, 96]])
        torch.testing.assert_close(compiled(images, contents), found(images, contents), rtol=1e-4, atol=1e-4)
    assert counter.frame_count == 1


def test_no_region_is_part_of_another_and_every_convolution_is_in_one() -> None:
    network = small()
    owner: dict[nn.Module, nn.Module] = {}
    for region in regions(network):
        for layer in region.modules():
            if isinstance(layer, nn.Conv2d):
                assert layer not in owner
                owner[layer] = region
    assert owner.keys() == {layer for layer in network.modules() if isinstance(layer, nn.Conv2d)}
    assert {type(region) for region in owner.values()} == {ConvNorm, Resample, Bottleneck, Residual, Tower}


def test_candidates_share_the_programs_of_their_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = CompileCounterWithBackend("eager")  # type: ignore[no-untyped-call]
    monkeypatch.setattr(compilation, "BACKEND", counter)
    images = torch.rand(2, 3, SIZE, SIZE)
    space = SearchSpace.spinenet49()
    counts = []
    for number in range(3):
        network = small(sample_without_dead_blocks(space, generator(0, "regions", number)))
        network.eval()  # the same features twice, compiled or not
        with torch.no_grad():
            plain = network(images)
            compile_network(network, "blocks")
            torch.testing.assert_close(network(images), plain, rtol=1e-4, atol=1e-5)
        counts.append(counter.frame_count)
    with torch.no_grad():
        again = small(sample_without_dead_blocks(space, generator(0, "regions", 2))).eval()
        compile_network(again, "blocks")
        again(images)
    assert counter.frame_count == counts[-1]
    num_regions = len(regions(network))
    assert counts[0] < num_regions
    assert counts[2] < 2 * num_regions, counts


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU by g++")
def test_a_compiled_block_is_the_same_block_and_its_compilation_is_timed() -> None:
    """Uses the same compiler as trainings."""
    network = small()
    region = next(module for module in network.modules() if isinstance(module, Residual))
    before = compile_seconds()
    x = torch.rand(2, region.conv1.in_channels, 12, 12)
    plain = region(x).square().sum()
    (gradient,) = torch.autograd.grad(plain, region.conv1.weight)
    region.compile(fullgraph=True, dynamic=False)
    loss = region(x).square().sum()
    forward = compile_seconds()
    assert forward > before
    torch.testing.assert_close(loss, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(loss, region.conv1.weight)[0], gradient, rtol=1e-3, atol=1e-4)
    assert compile_seconds() > forward, "the backward program is not counted"


def test_off_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "BACKEND", lambda graph, inputs: pytest.fail("something is compiled"))
    network = small()
    compile_network(network, "off")
    network(torch.rand(2, 3, SIZE, SIZE))
