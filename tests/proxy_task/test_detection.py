"""Parts of the detector, each compared with a slow independent implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spinenas.proxy_task.config import EvalConfig
from spinenas.proxy_task.detector.anchors import anchor_boxes
from spinenas.proxy_task.detector.boxes import decode, encode, iou_yxyx, xywh_from_yxyx, yxyx_from_xywh
from spinenas.proxy_task.detector.losses import box_loss, detection_loss, focal_loss
from spinenas.proxy_task.detector.matching import anchor_targets, match_anchors
from spinenas.proxy_task.detector.nms import greedy_nms
from spinenas.proxy_task.detector.retinanet import build_retinanet
from spinenas.proxy_task.evaluation.detect import postprocess
from spinenas.proxy_task.training.augment import (
    Crop,
    augment_batch,
    augment_image,
    draw_crop,
    normalize,
    normalize_letterboxed,
    stack_crops,
)
from spinenas.space.cost import retinanet_cost
from spinenas.space.head import HeadConfig
from spinenas.space.network import count_madds, num_parameters
from spinenas.space.published import SPINENET_49
from spinenas.space.scaling import SCALINGS, Scaling
from spinenas.space.search_space import SearchSpace

Box = tuple[float, float, float, float]


def plain_iou(a: Box, b: Box) -> float:
    height = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    width = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - height * width
    return height * width / union if union > 0 else 0.0


def random_boxes(rng: np.random.Generator, *shape: int, size: float = 100) -> Tensor:
    """Return boxes yxyx of whole pixels, so that float32 and float64 agree exactly on overlaps."""
    corner = rng.integers(0, int(size), size=(*shape, 2))
    extent = rng.integers(1, int(size / 2), size=(*shape, 2))
    return torch.from_numpy(np.concatenate([corner, corner + extent], axis=-1)).float()


def test_overlaps_equal_the_direct_formula() -> None:
    boxes, others = random_boxes(np.random.default_rng(0), 20), random_boxes(np.random.default_rng(1), 30)
    overlaps = iou_yxyx(boxes, others)
    for i in range(20):
        for j in range(30):
            assert float(overlaps[i, j]) == pytest.approx(
                plain_iou(tuple(boxes[i].tolist()), tuple(others[j].tolist()))
            )
    empty = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    assert float(iou_yxyx(empty, empty)) == 0.0


def greedy_reference(
    boxes: list[Box], scores: list[float], classes: list[int], iou_threshold: float, max_detections: int
) -> list[int]:
    """Textbook NMS: per class keep the best, drop boxes that overlap it, then take the best over classes."""
    kept: list[int] = []
    for each in sorted(set(classes)):
        order = sorted((i for i in range(len(boxes)) if classes[i] == each and scores[i] > 0), key=lambda i: -scores[i])
        chosen: list[int] = []
        for i in order:
            if all(plain_iou(boxes[i], boxes[j]) <= iou_threshold for j in chosen):
                chosen.append(i)
        kept += chosen
    return sorted(kept, key=lambda i: (-scores[i], i))[:max_detections]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_boxes=st.integers(1, 60),
    num_classes=st.integers(1, 4),
    max_detections=st.integers(1, 30),
    few_scores=st.booleans(),
)
def test_nms_equals_the_brute_force_greedy_reference(
    seed: int, num_boxes: int, num_classes: int, max_detections: int, few_scores: bool
) -> None:
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, 2, num_boxes, size=40)
    levels = 4 if few_scores else 1000  # few levels cause ties, and scores of 0 are never kept
    scores = torch.from_numpy(rng.integers(0, levels, size=(2, num_boxes)) / levels).float()
    classes = torch.from_numpy(rng.integers(1, num_classes + 1, size=(2, num_boxes)))
    assert_nms_is_the_reference(boxes, scores, classes, 0.5, max_detections)


def assert_nms_is_the_reference(
    boxes: Tensor, scores: Tensor, classes: Tensor, iou_threshold: float, max_detections: int
) -> None:
    kept = greedy_nms(boxes, scores, classes, iou_threshold=iou_threshold, max_detections=max_detections)
    for image in range(len(boxes)):
        expected = greedy_reference(
            [tuple(box) for box in boxes[image].tolist()],
            scores[image].tolist(),
            classes[image].tolist(),
            iou_threshold,
            max_detections,
        )
        assert kept[image].tolist() == expected + [-1] * (max_detections - len(expected))


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_boxes=st.integers(1, 25),
    iou_threshold=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    max_detections=st.integers(1, 30),
)
def test_nms_is_exact_where_boxes_are_equal_empty_or_overlap_by_exactly_the_threshold(
    seed: int, num_boxes: int, iou_threshold: float, max_detections: int
) -> None:
    """Few positions, sizes and scores; the second image has no candidate."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 3, size=(2, num_boxes, 2)) * 2
    extent = rng.choice([0, 2, 4, 8], size=(2, num_boxes, 2))
    boxes = torch.from_numpy(np.concatenate([corner, corner + extent], axis=-1)).float()
    scores = torch.from_numpy(rng.integers(0, 4, size=(2, num_boxes)) / 4).float()
    scores[1] = 0
    classes = torch.from_numpy(rng.integers(1, 3, size=(2, num_boxes)))
    assert_nms_is_the_reference(boxes, scores, classes, iou_threshold, max_detections)


def test_a_box_that_overlaps_by_exactly_the_threshold_stays() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 1.0, 1.0]]])
    for threshold, kept in ((0.5, [0, 1]), (0.499, [0, -1])):
        found = greedy_nms(
            boxes, torch.tensor([[0.9, 0.8]]), torch.ones(1, 2), iou_threshold=threshold, max_detections=2
        )  # fmt: skip
        assert found[0].tolist() == kept


def test_a_batch_of_images_gives_the_detections_of_each_alone() -> None:
    rng = np.random.default_rng(3)
    anchors = random_boxes(rng, 50)
    logits, deltas = torch.from_numpy(rng.normal(size=(3, 50, 4))).float(), torch.zeros(3, 50, 4)
    limits = torch.tensor([[80.0, 90.0]] * 3)
    config = EvalConfig(max_detections=10)
    together = postprocess(logits, deltas, anchors, limits, config)
    for image in range(3):
        alone = postprocess(logits[image : image + 1], deltas[:1], anchors, limits[:1], config)
        for part, parts in zip(alone, together, strict=True):
            assert torch.equal(part[0], parts[image])


def test_detections_stay_inside_the_image_and_are_never_of_channel_zero() -> None:
    rng = np.random.default_rng(4)
    anchors = random_boxes(rng, 50)
    logits = torch.full((1, 50, 4), -9.0)
    logits[..., 0] = 9.0
    logits[0, 7, 2] = 3.0
    boxes, scores, classes, valid = postprocess(
        logits, torch.zeros(1, 50, 4), anchors, torch.tensor([[30.0, 40.0]]), EvalConfig()
    )
    assert int(valid.sum()) == 1
    assert int(classes[0, 0]) == 2
    assert float(scores[0, 0]) == pytest.approx(1 / (1 + math.exp(-3)))
    assert torch.equal(boxes[0, 0], torch.minimum(anchors[7], torch.tensor([30.0, 40.0, 30.0, 40.0])))


def test_anchors_are_where_the_formula_puts_them_in_the_order_of_the_head() -> None:
    anchors = anchor_boxes((128, 96), [3, 4], anchor_scale=3.0, num_scales=3, aspect_ratios=(1.0, 2.0, 0.5))
    expected = []
    for level in (3, 4):
        stride = 2**level
        for row in range(128 // stride):
            for column in range(96 // stride):
                for scale in range(3):
                    for ratio in (1.0, 2.0, 0.5):
                        side = 3 * stride * 2 ** (scale / 3)
                        height, width = side / math.sqrt(ratio), side * math.sqrt(ratio)
                        y, x = (row + 0.5) * stride, (column + 0.5) * stride
                        expected.append((y - height / 2, x - width / 2, y + height / 2, x + width / 2))
    torch.testing.assert_close(anchors, torch.tensor(expected))


def test_decode_is_the_inverse_of_encode_and_limits_the_scale() -> None:
    boxes, anchors = random_boxes(np.random.default_rng(5), 100), random_boxes(np.random.default_rng(6), 100)
    torch.testing.assert_close(decode(encode(boxes, anchors), anchors), boxes, rtol=1e-4, atol=1e-3)
    huge = decode(torch.tensor([0.0, 0.0, 50.0, 0.0]), torch.tensor([0.0, 0.0, 16.0, 16.0]))
    assert float(huge[2] - huge[0]) == pytest.approx(1000)
    torch.testing.assert_close(yxyx_from_xywh(xywh_from_yxyx(boxes)), boxes)


def test_every_anchor_is_matched_by_the_rule() -> None:
    rng = np.random.default_rng(7)
    for _ in range(30):
        anchors, boxes = random_boxes(rng, 60, size=30), random_boxes(rng, int(rng.integers(1, 6)), size=30)
        overlaps = [[plain_iou(tuple(a.tolist()), tuple(b.tolist())) for b in boxes] for a in anchors]
        expected = [int(np.argmax(row)) if max(row) >= 0.5 else -1 for row in overlaps]
        forced: dict[int, int] = {}
        for box in range(len(boxes)):
            column = [row[box] for row in overlaps]
            if max(column) > 0:
                forced.setdefault(int(np.argmax(column)), box)
        for anchor, box in forced.items():
            expected[anchor] = box
        assert match_anchors(anchors, boxes).tolist() == expected


def test_a_padded_batch_is_matched_like_each_of_its_images() -> None:
    rng = np.random.default_rng(9)
    anchors = random_boxes(rng, 80, size=30)
    each = [random_boxes(rng, count, size=30) for count in (3, 1, 7, 5)]
    boxes, labels = torch.zeros(4, 9, 4), torch.zeros(4, 9, dtype=torch.long)
    for image, found in enumerate(each):
        boxes[image, : len(found)] = found
        labels[image, : len(found)] = torch.arange(1, len(found) + 1)
    classes, box_targets = anchor_targets(anchors, boxes, labels)
    for image, found in enumerate(each):
        alone, alone_targets = anchor_targets(anchors, found, torch.arange(1, len(found) + 1))
        assert torch.equal(classes[image], alone)
        assert torch.equal(box_targets[image], alone_targets)
        assert int((alone > 0).sum()) > 0


def test_an_image_without_boxes_is_all_background() -> None:
    anchors = random_boxes(np.random.default_rng(8), 10)
    classes, box_targets = anchor_targets(anchors, torch.zeros(1, 4), torch.zeros(1, dtype=torch.long))
    assert classes.tolist() == [0] * 10
    assert box_targets.abs().sum() == 0
    loss, _, box_part = detection_loss(
        torch.zeros(1, 10, 3), torch.ones(1, 10, 4), classes[None], box_targets[None],
        alpha=0.25, gamma=1.5, delta=0.1, box_weight=50.0,
    )  # fmt: skip
    assert torch.isfinite(loss)
    assert float(box_part) == 0.0


def test_losses_equal_their_formulas() -> None:
    rng = np.random.default_rng(9)
    logits, classes = torch.from_numpy(rng.normal(0, 2, size=(6, 4))), torch.tensor([0, 1, 3, 0, 2, 0])
    expected = 0.0
    for anchor in range(6):
        for channel in range(4):
            p = 1 / (1 + math.exp(-float(logits[anchor, channel])))
            if channel and int(classes[anchor]) == channel:
                expected += 0.25 * (1 - p) ** 1.5 * -math.log(p)
            else:
                expected += 0.75 * p**1.5 * -math.log(1 - p)
    assert float(focal_loss(logits, classes, alpha=0.25, gamma=1.5)) == pytest.approx(expected)

    deltas, box_targets = torch.from_numpy(rng.normal(0, 0.2, size=(2, 6, 4)))
    positive = classes > 0
    huber = 0.0
    for error in (deltas - box_targets)[positive].flatten().tolist():
        huber += 0.5 * error**2 if abs(error) <= 0.1 else 0.1 * (abs(error) - 0.05)
    assert float(box_loss(deltas, box_targets, positive, delta=0.1)) == pytest.approx(huber / 4)
    total, class_part, box_part = detection_loss(
        logits, deltas, classes, box_targets, alpha=0.25, gamma=1.5, delta=0.1, box_weight=50.0
    )
    assert float(class_part) == pytest.approx(expected / 4, rel=1e-5)
    assert float(box_part) == pytest.approx(huber / 4 / 4, rel=1e-5)
    assert float(total) == pytest.approx(expected / 4 + 50 * huber / 16, rel=1e-5)


def test_published_retinanet_has_the_published_size() -> None:
    network = build_retinanet(SPINENET_49, SCALINGS["49"], HeadConfig(), class_channels=91).eval().to("meta")
    assert num_parameters(network) == 28_543_383
    madds = count_madds(network, torch.empty(1, 3, 640, 640, device="meta"))
    assert round(madds / 1e9, 2) == 85.28


def test_the_detectors_of_random_genotypes_have_the_computed_cost() -> None:
    rng = np.random.default_rng(10)
    space = SearchSpace.spinenet49()
    head = HeadConfig(num_convs=2, channels=24, num_scales=2)
    for _ in range(6):
        genotype, scaling = space.sample(rng), Scaling("test", 0.25, 16, 0.5, 1)
        network = build_retinanet(genotype, scaling, head, class_channels=5).eval().to("meta")
        cost = retinanet_cost(
            genotype, scaling, 160, class_channels=5, head_convs=2, head_channels=24, num_anchors=6
        )  # fmt: skip
        assert num_parameters(network) == cost.params
        assert count_madds(network, torch.empty(1, 3, 160, 160, device="meta")) == cost.madds


def test_predictions_are_in_the_order_of_the_anchors() -> None:
    """An input at one cell of one level affects exactly that cell's anchors."""
    scaling = Scaling("test", 0.125, 8, 0.5, 1)
    network = build_retinanet(SPINENET_49, scaling, HeadConfig(num_convs=0), class_channels=3).eval()
    features = {level: torch.zeros(1, 8, 128 // 2**level, 128 // 2**level) for level in (7, 3, 6, 4, 5)}
    features[5][0, :, 2, 3] = 1.0
    with torch.no_grad():
        for tower in network.head.values():
            tower.predict.weight.fill_(0)  # type: ignore[union-attr, operator]
            tower.predict.weight[:, :, 1, 1] = 1  # type: ignore[index]
        network.backbone.forward = lambda images: features  # type: ignore[method-assign]
        _, deltas = network(torch.zeros(1, 3, 128, 128))
    anchors = network.anchors((128, 128))
    lit = (deltas[0] != 0).any(dim=1)
    assert int(lit.sum()) == 9
    centers = (anchors[lit][:, :2] + anchors[lit][:, 2:]) / 2
    torch.testing.assert_close(centers, torch.tensor([[2.5 * 32, 3.5 * 32]]).expand(9, 2))
    assert float((anchors[lit][:, 3] - anchors[lit][:, 1]).min()) == pytest.approx(96 / math.sqrt(2))


@pytest.mark.parametrize("jitter", [(1.0, 1.0), (0.5, 0.5), (2.0, 2.0), (0.7, 1.4)])
def test_boxes_follow_their_object_through_flip_scale_and_crop(jitter: tuple[float, float]) -> None:
    """A white rectangle on black stays within its box, up to a pixel of blur."""
    for number in range(20):
        rng = np.random.default_rng(number)
        image = torch.zeros(64, 64, 3, dtype=torch.uint8)
        content = (64, 48) if number % 2 else (40, 64)
        y0, x0 = int(rng.integers(0, content[0] - 16)), int(rng.integers(0, content[1] - 16))
        y1, x1 = y0 + int(rng.integers(8, 16)), x0 + int(rng.integers(8, 16))
        image[y0:y1, x0:x1] = 255
        crop = draw_crop(content, 64, rng, flip=True, scale_jitter=jitter)
        out = augment_image(image, crop)
        boxes, kept = crop.transform_boxes(np.array([[y0, x0, y1, x1]], dtype=np.float64))
        assert out.shape == (3, 64, 64)
        middle = float((normalize(torch.full((3, 1, 1), 255.0)) + normalize(torch.zeros(3, 1, 1)))[0, 0, 0]) / 2
        rows, columns = torch.nonzero(out[0] > middle, as_tuple=True)
        if not len(rows):
            assert not len(kept) or float(min(boxes[0, 2] - boxes[0, 0], boxes[0, 3] - boxes[0, 1])) < 3
            continue
        if not len(kept):
            assert min(int(rows.max() - rows.min()), int(columns.max() - columns.min())) <= 2
            continue
        seen = [int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1]
        assert np.abs(boxes[0] - seen).max() <= 1.6


def test_an_image_without_augmentation_is_the_normalised_image_padded_with_zeros() -> None:
    image = torch.full((32, 32, 3), 200, dtype=torch.uint8)
    out = normalize_letterboxed(image[None], torch.tensor([[32, 20]]))[0]
    red = (200 / 255 - 0.485) / 0.229
    assert float(out[0, 5, 5]) == pytest.approx(red)
    assert float(out[:, :, 20:].abs().sum()) == 0
    plain = augment_image(image, Crop(corner=(0, 0), size=(32, 20), target_size=(32, 20), flipped=False))
    assert torch.equal(plain, out)


@pytest.mark.parametrize("jitter", [(1.0, 1.0), (0.5, 2.0), (0.1, 0.4), (3.0, 5.0)])
def test_a_batch_is_augmented_like_each_of_its_images(jitter: tuple[float, float]) -> None:
    rng = np.random.default_rng(4)
    images = torch.from_numpy(rng.integers(0, 256, size=(24, 48, 48, 3), dtype=np.uint8))
    # No target is a single column: for those, torch's antialiased interpolation repeats the first row.
    shorts = rng.integers(20, 49, size=len(images)).tolist()
    contents = [(48, short) if i % 2 else (short, 48) for i, short in enumerate(shorts)]
    crops = [draw_crop(content, 48, rng, flip=True, scale_jitter=jitter) for content in contents]
    assert any(crop.flipped for crop in crops)
    batch = augment_batch(images, stack_crops(crops))
    each = torch.stack([augment_image(image, crop) for image, crop in zip(images, crops, strict=True)])
    torch.testing.assert_close(batch, each, rtol=0, atol=1e-4)
