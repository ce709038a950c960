"""Prints the table of docs/parity.md: the largest relative error of every golden fixture.

    python tests/parity_table.py

Errors are relative to the largest absolute value of each tensor, like the fixtures' tolerance of 1e-5.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import oracle_weights
import torch
from oracle_detector import anchors_of, batch_targets, fixture, from_formula, training_step
from shared_fixtures import shared_folder

from spinenas.proxy_task.config import EvalConfig
from spinenas.proxy_task.detector.anchors import anchor_boxes
from spinenas.proxy_task.detector.boxes import decode, encode
from spinenas.proxy_task.detector.losses import detection_loss, focal_loss
from spinenas.proxy_task.detector.retinanet import build_retinanet
from spinenas.proxy_task.evaluation.detect import postprocess
from spinenas.space.dialect import DIALECTS
from spinenas.space.head import HeadConfig
from spinenas.space.published import MOBILE_49, SPINENET_49
from spinenas.space.scaling import SCALINGS


def error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference, relative to the largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def backbone_error(path: Path) -> float:
    case = json.loads(path.read_text(encoding="utf-8"))
    golden = np.load(path.with_suffix(".npz"), allow_pickle=False)
    with torch.no_grad():
        outputs = oracle_weights.backbone(case)(oracle_weights.image(case))
    step = case.get("channel_stride_in_npz", 1)
    return max(
        error(output.permute(0, 2, 3, 1).numpy()[..., ::step], golden[f"end{level}"])
        for level, output in outputs.items()
    )


def detector_error(folder: Path, name: str) -> float:
    golden = np.load(folder / f"{name}.npz", allow_pickle=False)
    mobile = "mobile" in name
    network = build_retinanet(
        MOBILE_49 if mobile else SPINENET_49,
        SCALINGS["mobile-49" if mobile else "49"],
        HeadConfig(channels=48, separable=True) if mobile else HeadConfig(),
        class_channels=91,
        dialect="tensorflow/models",
        activation="swish" if mobile else "relu",
    )
    oracle_weights.fill_from_formulas(network)
    with torch.no_grad():
        logits, deltas = network.eval()(oracle_weights.image_of(1, 128, 128))
    errors, start = [], 0
    for level in (3, 4, 5, 6, 7):
        cells = 128 >> level
        rows = slice(start, start + 9 * cells**2)
        start = rows.stop
        errors.append(error(deltas[:, rows].reshape(1, cells, cells, -1).numpy(), golden[f"box_L{level}"]))
        scores = logits[:, rows].reshape(1, cells, cells, -1).numpy()[..., ::9]
        errors.append(error(scores, golden[f"cls_L{level}_every9"]))
    return max(errors)


def anchors_error(folder: Path) -> float:
    golden = np.load(folder / "retina_anchors_256.npz", allow_pickle=False)
    errors = []
    for size, dialect in ((3, "tfv"), (4, "tf1")):
        ratios = DIALECTS["tensorflow/models" if dialect == "tfv" else "tensorflow/tpu"].aspect_ratios
        for level in (3, 4, 5, 6, 7):
            boxes = anchor_boxes((256, 256), [level], anchor_scale=size, num_scales=3, aspect_ratios=ratios)
            theirs = golden[f"size{size}_{dialect}_L{level}"]
            errors.append(error(boxes.numpy().reshape(theirs.shape), theirs))
    return max(errors)


def losses_error(folder: Path) -> float:
    golden = np.load(folder / "retina_losses.npz", allow_pickle=False)
    errors = []
    for gamma in (1.5, 2.0):
        scores = torch.from_numpy(golden["logits"]).double().requires_grad_(True)
        logits = torch.stack([torch.full_like(scores, -200.0), scores], dim=-1)
        loss = focal_loss(logits, torch.from_numpy(golden["targets"]).long(), alpha=0.25, gamma=gamma)
        (gradient,) = torch.autograd.grad(loss, scores)
        errors.append(error(gradient.numpy(), golden[f"focal_a0.25_g{gamma}_grad"]))
    return max(errors)


def total_loss_error() -> float:
    case = fixture("retina_total_loss_128")
    parts = detection_loss(
        from_formula("det:cls", 128, 819, 3, -4),
        from_formula("det:box", 128, 36, 0.5, 0),
        *batch_targets(case, anchors_of(128)),
        alpha=0.25,
        gamma=1.5,
        delta=0.1,
        box_weight=50,
    )
    names = ("model_loss", "cls_loss", "box_loss")
    return max(abs(float(ours) / case[name] - 1) for ours, name in zip(parts, names, strict=True))


def nms_error(folder: Path) -> float:
    golden = np.load(folder / "retina_nms_128.npz", allow_pickle=False)
    logits, deltas = from_formula("nms:cls", 128, 36, 6, -4), from_formula("nms:box", 128, 36, 0.3, 0)
    limits = torch.tensor(fixture("retina_nms_128")["image_shape"], dtype=torch.float32)
    boxes, _, classes, _ = postprocess(logits, deltas, anchors_of(128), limits, EvalConfig())
    assert np.array_equal(classes.numpy(), golden["v1_detection_classes"])
    return error(boxes.numpy(), golden["v1_detection_boxes"])


def step_errors(activation: str) -> list[tuple[str, float]]:
    case = fixture(f"train_49S_{activation}_2x256x256")
    step = training_step(case)
    losses = max(abs(ours / case[name] - 1) for name, ours in step.losses.items())
    gradients = max(
        float(np.abs(step.gradients[name][:4] - golden["head4"]).max() / max(golden["l2"], 1e-9))
        for name, golden in case["grads"].items()
    )
    return [("losses", losses), ("gradients, of their norm", gradients)]


def main() -> None:
    torch.set_num_threads(1)
    folder = shared_folder("oracle")
    rows = [(path.stem, backbone_error(path)) for path in sorted(folder.glob("tf?_*.json"))]
    rows += [(path.stem, detector_error(folder, path.stem)) for path in sorted(folder.glob("retinanet_*.json"))]
    rows.append(("retina_anchors_256", anchors_error(folder)))
    coder = {
        name: torch.from_numpy(array)
        for name, array in np.load(folder / "retina_box_coder.npz", allow_pickle=False).items()
    }
    encoded = encode(coder["gt"], coder["anchors"]).numpy()
    decoded = decode(coder["codes"], coder["anchors"]).numpy()
    rows.append(("retina_box_coder, encode", error(encoded, coder["encode_label"].numpy())))
    rows.append(("retina_box_coder, decode", error(decoded, coder["decode_box_ops_clipped"].numpy())))
    rows += [("retina_losses, gradients", losses_error(folder)), ("retina_total_loss_128", total_loss_error())]
    rows.append(("retina_nms_128, boxes", nms_error(folder)))
    for activation in ("relu", "swish"):
        rows += [(f"train_49S_{activation}_2x256x256, {what}", largest) for what, largest in step_errors(activation)]
    for name, largest in rows:
        print(f"| `{name}` | {largest:.1e} |", flush=True)


if __name__ == "__main__":
    main()
