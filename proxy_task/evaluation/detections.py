"""Detections as arrays: on the square canvas that the network sees, and in the original images."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.images.labelled_images import LabelledImages
from spinenas.results.storage.atomic_write import write_bytes_atomically
from spinenas.space.errors import UserError, explained_os_errors


@dataclass(frozen=True, slots=True)
class CanvasDetections:
    """Detections in pixels of the square canvas, in descending order of score within an image.

    Attributes:
        rows: (D,) rows of the images.
        labels: (D,) class channels, 1 to K.
        boxes_xywh: (D, 4) float64.
        scores: (D,) float64.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes_xywh: NDArray[np.float64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """D detections in the original images, in any order; of equal scores, the first counts as higher.

    Attributes:
        image_ids: (D,) as in the annotation file.
        category_ids: (D,) ids of the annotation file, not class channels.
        boxes_xywh: (D, 4) pixels of the original image.
        scores: (D,) higher is more certain.
    """

    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    boxes_xywh: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        num_detections = len(self.scores)
        assert self.image_ids.shape == self.category_ids.shape == self.scores.shape == (num_detections,)
        assert self.boxes_xywh.shape == (num_detections, 4)
        # pycocotools takes a box of NaN for a perfect match.
        if not (np.isfinite(self.boxes_xywh).all() and np.isfinite(self.scores).all()):
            raise ValueError("a detection has a box or score that is not finite; the network has diverged")


def rescale_to_originals(found: CanvasDetections, data: LabelledImages, category_ids: NDArray[np.int64]) -> Detections:
    """Convert detections to pixels of the original images; class channel i + 1 means category_ids[i]."""
    return Detections(
        image_ids=data.annotations.image_ids[found.rows],
        category_ids=category_ids[found.labels - 1],
        boxes_xywh=found.boxes_xywh / data.scales[found.rows][:, None],
        scores=found.scores,
    )


def save_detections(path: Path, detections: Detections) -> None:
    """Write detections as a NumPy archive (.npz) of their arrays. Raises UserError."""
    archive = io.BytesIO()
    np.savez_compressed(archive, **{item.name: getattr(detections, item.name) for item in fields(detections)})
    remedy = "put the run on storage that can be written and that all machines see under the same path"
    with explained_os_errors(f"cannot keep the detections in {path}", remedy):
        write_bytes_atomically(path, archive.getvalue())


def load_detections(path: Path) -> Detections:
    """Read what `save_detections` wrote. Raises UserError."""
    remedy = "restore it from a copy of the run"
    try:
        with explained_os_errors(f"cannot read {path}", remedy), np.load(path, allow_pickle=False) as archive:
            return Detections(**{item.name: archive[item.name] for item in fields(Detections)})
    except UserError:
        raise
    except (ValueError, KeyError, EOFError, AssertionError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged and holds no detections; {remedy}") from error
