"""Prints the largest relative error of every golden fixture, the table of docs/parity.md.

    python tests/parity_table.py

Relative to the largest absolute value of each tensor, as the fixtures' tolerance of 1e-5 is.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import oracle_weights
import torch
from shared_fixtures import shared_folder

from spinenas.proxy_task.anchors import anchor_boxes
from spinenas.proxy_task.boxes import decode, encode
from spinenas.proxy_task.config import HeadConfig
from spinenas.proxy_task.retinanet import build_retinanet
from spinenas.space.dialect import DIALECTS
from spinenas.space.published import MOBILE_49, SPINENET_49
from spinenas.space.scaling import SCALINGS


def error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference, relative to the largest value."""
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
    for name, largest in rows:
        print(f"| `{name}` | {largest:.1e} |", flush=True)


if __name__ == "__main__":
    main()
