"""Finds the annotation file and the image folder of each split of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spinenas.proxy_task.config import DataConfig
from spinenas.space.errors import UserError

LAYOUTS = {
    "annotations/instances_{split}.json": ("images/{split}", "images"),
    "annotations/instances_{split}2017.json": ("{split}2017", "images/{split}2017"),
}
"""Annotation file of a split, and possible folders of its images in order of preference."""


Split = Literal["train", "val"]


@dataclass(frozen=True, slots=True)
class SplitPaths:
    """The annotation file of a split and the folder of its images; both exist."""

    annotations: Path
    images: Path


def find_split(config: DataConfig, split: Split) -> SplitPaths:
    """Return the paths of a split: the explicit ones, or those of a data folder in either layout. Raises UserError.

    For the generated data set, the caller first replaces "built-in" by its folder (`synthetic.resolve_built_in`).
    """
    if config.train_annotations is not None:
        return SplitPaths(
            _existing(getattr(config, f"{split}_annotations"), f"task.data.{split}_annotations", "file"),
            _existing(getattr(config, f"{split}_images"), f"task.data.{split}_images", "folder"),
        )
    if not config.folder:
        raise UserError("no data set is named; give --data FOLDER, or task.data.folder in the configuration")
    return _find_split(_existing(config.folder, "the data folder", "folder"), split)


def _find_split(folder: Path, split: Split) -> SplitPaths:
    for file_pattern, image_patterns in LAYOUTS.items():
        annotations = folder / file_pattern.format(split=split)
        if annotations.is_file():
            candidates = [folder / pattern.format(split=split) for pattern in image_patterns]
            for images in candidates:
                if images.is_dir():
                    return SplitPaths(annotations, images)
            raise UserError(
                f"data folder {folder} has {annotations.relative_to(folder)} but no images: a folder "
                f"{' or '.join(str(images.relative_to(folder)) for images in candidates)} is needed"
            )
    looked_for = " nor ".join(pattern.format(split=split) for pattern in LAYOUTS)
    raise UserError(
        f"data folder {folder} holds no COCO data set: it has neither {looked_for}; use one of these layouts "
        "or give the four paths task.data.train_annotations, train_images, val_annotations and val_images"
    )


def _existing(path: str, what: str, kind: Literal["file", "folder"]) -> Path:
    found = Path(path).expanduser()
    if not (found.is_file() if kind == "file" else found.is_dir()):
        problem = f"is not a {kind}" if found.exists() else "does not exist"
        raise UserError(f"{what} is {path}, which {problem}; check the path")
    return found
