"""Detector, anchors, box coder, matching, losses, NMS and one training step against the TensorFlow implementations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracle_weights
import pytest
import torch
from numpy.typing import NDArray
from oracle_detector import (
    LEVELS,
    MODELS,
    TPU,
    anchors_of,
    arrays,
    batch_targets,
    fixture,
    from_formula,
    training_step,
)
from torch import Tensor

from spinenas.proxy_task.config import EvalConfig, TrainConfig
from spinenas.proxy_task.detector.anchors import anchor_boxes
from spinenas.proxy_task.detector.boxes import MAX_LOG_SCALE, decode, encode
from spinenas.proxy_task.detector.losses import box_loss, detection_loss, focal_loss
from spinenas.proxy_task.detector.matching import anchor_targets
from spinenas.proxy_task.detector.retinanet import build_retinanet
from spinenas.proxy_task.evaluation.detect import postprocess
from spinenas.proxy_task.training.train import make_optimizer
from spinenas.space.head import HeadConfig
from spinenas.space.published import MOBILE_49, SPINENET_49
from spinenas.space.scaling import SCALINGS


def by_level(predictions: Tensor, size: int) -> dict[int, NDArray[np.generic]]:
    """Split (N, A, C) into maps (N, h, w, 9 C), the layout of the originals."""
    maps, start = {}, 0
    for level in LEVELS:
        cells = -(-size // 2**level)
        part = predictions[:, start : start + 9 * cells**2]
        maps[level] = part.reshape(len(predictions), cells, cells, -1).numpy()
        start += 9 * cells**2
    return maps


@pytest.mark.parametrize(
    ("name", "genotype", "scaling", "head"),
    [
        ("retinanet_49_relu_1x128x128", SPINENET_49, "49", HeadConfig()),
        ("retinanet_mobile49_swish_1x128x128", MOBILE_49, "mobile-49", HeadConfig(channels=48, separable=True)),
    ],
    ids=["49", "mobile-49"],
)
def test_raw_predictions_of_the_detector(name: str, genotype: Any, scaling: str, head: HeadConfig) -> None:
    case, golden = fixture(name), arrays(name)
    network = build_retinanet(
        genotype,
        SCALINGS[scaling],
        head,
        class_channels=91,
        dialect="tensorflow/models",
        activation=case["activation"],
    )
    assert sum(p.numel() for p in network.parameters()) == case["trainable_params"]
    oracle_weights.fill_from_formulas(network)
    with torch.no_grad():
        logits, deltas = network.eval()(oracle_weights.image_of(1, 128, 128))
    for level, boxes in by_level(deltas, 128).items():
        expected = golden[f"box_L{level}"]
        assert np.abs(boxes - expected).max() <= 1e-5 * np.abs(expected).max(), f"boxes of level {level}"
    for level, scores in by_level(logits, 128).items():
        expected = golden[f"cls_L{level}_every9"]
        assert np.abs(scores[..., ::9] - expected).max() <= 1e-5 * np.abs(expected).max(), f"classes of level {level}"
        described = case["outputs"][f"cls_L{level}"]
        statistics = oracle_weights.statistics(torch.from_numpy(scores).permute(0, 3, 1, 2))
        for statistic, value in statistics.items():
            assert abs(value - described[statistic]) <= 1e-5 * described["abs_max"], f"classes of level {level}"


def test_anchors_of_both_dialects() -> None:
    golden = arrays("retina_anchors_256")
    for key in golden.files:
        size, dialect, *_ = key.split("_")
        ratios = (TPU if dialect == "tf1" else MODELS).aspect_ratios
        shape = (256, 384) if "256x384" in key else (256, 256)
        level = int(key.split("_L")[1][0])
        boxes = anchor_boxes(
            shape, [level], anchor_scale=float(size.removeprefix("size")), num_scales=3, aspect_ratios=ratios
        ).numpy()
        maps = boxes.reshape(shape[0] >> level, shape[1] >> level, 36)
        if key.endswith("first_last"):
            maps = np.stack([maps[0, 0], maps[-1, -1]])
        elif key.endswith("corners"):
            maps = np.stack([maps[0, 0], maps[0, -1], maps[-1, 0], maps[-1, -1]])
        np.testing.assert_allclose(maps, golden[key], rtol=0, atol=1e-5 * np.abs(golden[key]).max(), err_msg=key)


def test_box_coder() -> None:
    golden = {name: torch.from_numpy(array) for name, array in arrays("retina_box_coder").items()}
    torch.testing.assert_close(encode(golden["gt"], golden["anchors"]), golden["encode_label"], rtol=1e-5, atol=1e-5)
    largest = float(golden["decode_box_ops_clipped"].abs().max())
    decoded = decode(golden["codes"], golden["anchors"])
    torch.testing.assert_close(decoded, golden["decode_box_ops_clipped"], rtol=0, atol=1e-5 * largest)
    assert float(golden["xform_clip"]) == pytest.approx(MAX_LOG_SCALE, abs=1e-12)


def test_the_plus_one_decoding_of_tensorflow_tpu() -> None:
    # Computed by hand: an anchor of 8 x 15 pixels counts as 9 x 16, moves by half and a quarter, and doubles in height.
    decoded = decode(torch.tensor([0.5, 0.25, math.log(2), 0.0]), torch.tensor([10.0, 20.0, 18.0, 35.0]), plus_one=True)
    # Centre (10 + 4.5 + 4.5, 20 + 8 + 4), size (18, 16); the far corner is the last pixel.
    torch.testing.assert_close(decoded, torch.tensor([10.0, 24.0, 27.0, 39.0]))


@pytest.mark.parametrize("name", ["basic", "hard", "single_small"])
def test_targets(name: str) -> None:
    case = fixture("retina_targets_256")["cases"][name]
    anchors = anchors_of(256)
    boxes = torch.tensor(case["gt_boxes_yxyx"], dtype=torch.float32)
    classes, box_targets = anchor_targets(anchors, boxes, torch.tensor(case["gt_classes"]))
    positive = torch.nonzero(classes)[:, 0].tolist()
    assert len(anchors) == case["num_anchors"]
    assert len(positive) == case["num_positive"]
    # If a tiny box ties among many anchors, rounding decides which one is forced.
    tied = {anchor: ties for ties in case["tied_best_anchors_of_each_gt"] if len(ties) > 1 for anchor in ties}
    wanted = zip(case["positive_class"], case["positive_box_target"], strict=True)
    expected = dict(zip(case["positive_anchor"], wanted, strict=True))
    for anchor in positive:
        if anchor in expected:
            assert int(classes[anchor]) == expected[anchor][0]
            np.testing.assert_allclose(box_targets[anchor].numpy(), expected[anchor][1], rtol=1e-5, atol=1e-5)
        else:
            assert set(tied[anchor]) & (expected.keys() - set(positive)), f"anchor {anchor} is no tie of a forced one"


def test_losses() -> None:
    golden = {name: torch.from_numpy(np.asarray(array)) for name, array in arrays("retina_losses").items()}
    # The fixture has several positive classes at an anchor: each of its channels is an anchor here, whose channel 0
    # is never positive and has a logit that costs nothing.
    classes = golden["targets"].long()
    for gamma in (1.5, 2.0):
        name = f"focal_a0.25_g{gamma}"
        scores = golden["logits"].double().requires_grad_(True)
        logits = torch.stack([torch.full_like(scores, -200.0), scores], dim=-1)
        loss = focal_loss(logits, classes, alpha=0.25, gamma=gamma)
        assert float(loss.detach()) == pytest.approx(float(golden[f"{name}_sum"]), rel=1e-6)
        (gradient,) = torch.autograd.grad(loss, scores)
        largest = float(golden[f"{name}_grad"].abs().max())
        torch.testing.assert_close(gradient.float(), golden[f"{name}_grad"], rtol=0, atol=1e-5 * largest)
    everywhere = torch.ones(golden["box_pred"].shape[:-1], dtype=torch.bool)
    huber = box_loss(golden["box_pred"], golden["box_target"], everywhere, delta=0.1)
    assert float(huber) == pytest.approx(float(golden["huber_d0p1_mean_over_4"].double().sum()), rel=1e-5)


def test_a_target_of_zero_is_masked_in_tensorflow_tpu() -> None:
    deltas, wanted = torch.tensor([[0.5, 0.05, -1.0, 0.2]]), torch.tensor([[0.0, 0.0, 1.0, 0.2]])
    positive = torch.tensor([True])
    huber = [0.1 * (0.5 - 0.05), 0.05**2 / 2, 0.1 * (2.0 - 0.05), 0.0]
    assert float(box_loss(deltas, wanted, positive, delta=0.1)) == pytest.approx(sum(huber) / 4)
    masked = box_loss(deltas, wanted, positive, delta=0.1, mask_zero_targets=True)
    assert float(masked) == pytest.approx(huber[2] / 4)


def test_total_loss_of_a_batch() -> None:
    case = fixture("retina_total_loss_128")
    classes, box_targets = batch_targets(case, anchors_of(128))
    assert int((classes > 0).sum()) == case["num_positives"]
    total, class_part, box_part = detection_loss(
        from_formula("det:cls", 128, 819, 3, -4),
        from_formula("det:box", 128, 36, 0.5, 0),
        classes,
        box_targets,
        alpha=0.25,
        gamma=1.5,
        delta=0.1,
        box_weight=50,
    )
    assert float(class_part) == pytest.approx(case["cls_loss"], rel=1e-5)
    assert float(box_part) == pytest.approx(case["box_loss"], rel=1e-5)
    assert float(total) == pytest.approx(case["model_loss"], rel=1e-5)


def test_detections_after_nms() -> None:
    golden = arrays("retina_nms_128")
    logits, deltas = from_formula("nms:cls", 128, 36, 6, -4), from_formula("nms:box", 128, 36, 0.3, 0)
    limits = torch.tensor(fixture("retina_nms_128")["image_shape"], dtype=torch.float32)
    boxes, scores, classes, valid = postprocess(logits, deltas, anchors_of(128), limits, EvalConfig())
    for image in range(2):
        assert int(valid[image].sum()) == golden["v1_num_detections"][image]
        for path in ("v1", "v2", "batched"):
            np.testing.assert_array_equal(classes[image].numpy(), golden[f"{path}_detection_classes"][image])
            np.testing.assert_allclose(scores[image].numpy(), golden[f"{path}_detection_scores"][image], rtol=1e-5)
            np.testing.assert_allclose(boxes[image].numpy(), golden[f"{path}_detection_boxes"][image], atol=2e-3)


@pytest.mark.parametrize("activation", ["swish", "relu"])
def test_one_training_step(activation: str) -> None:
    case = fixture(f"train_49S_{activation}_2x256x256")
    step = training_step(case)
    for name, ours in step.losses.items():
        assert ours == pytest.approx(case[name], rel=2e-6), name
    assert case["grads"].keys() == step.gradients.keys()
    for name, golden in case["grads"].items():
        # The gradient of a bias before a batch norm is rounding error only.
        scale = max(golden["l2"], 1e-9)
        gradient = step.gradients[name]
        assert abs(np.linalg.norm(gradient) - golden["l2"]) <= 1e-5 * scale, f"norm of the gradient of {name}"
        assert np.abs(gradient[:4] - golden["head4"]).max() <= 1e-5 * scale, f"gradient of {name}"
    # PyTorch keeps the sample variance, as TensorFlow's fused batch norm does.
    for name, golden in case["moving_after_float32_fused"].items():
        assert float(step.state[name].sum()) == pytest.approx(golden["sum"], rel=1e-4, abs=1e-4), name
        np.testing.assert_allclose(step.state[name][:4], golden["head4"], rtol=1e-4, atol=1e-5, err_msg=name)


def test_depthwise_kernels_are_decayed_in_one_dialect_alone() -> None:
    head = HeadConfig(channels=24, separable=True)
    network = build_retinanet(MOBILE_49, SCALINGS["mobile-49XS"], head, class_channels=3)
    for decays in (True, False):
        decayed = make_optimizer(network, TrainConfig(), decay_depthwise=decays).param_groups[0]["params"]
        assert any(p.shape[1:] == (1, 3, 3) for p in decayed) is decays
    assert (TPU.decay_depthwise, MODELS.decay_depthwise) == (True, False)
