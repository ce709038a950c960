"""Finds the annotation file and the image folder of each split of a data set, as common tools lay them out."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spinenas.proxy_task.config import DataConfig
from spinenas.space.errors import UserError

Split = Literal["train", "val"]

SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "Train", "training", "Training"),
    "val": ("val", "Val", "valid", "Valid", "validation", "Validation"),
}
"""What tools call a split."""

LAYOUTS = {
    "annotations/instances_{split}.json": ("images/{split}", "images", "{split}"),
    "annotations/instances_{split}2017.json": ("{split}2017", "images/{split}2017"),
    "annotations/instances_{split}2014.json": ("{split}2014", "images/{split}2014"),
    "{split}/_annotations.coco.json": ("{split}",),
    "annotations/{split}.json": ("images/{split}", "images", "{split}"),
    "{split}/annotations.json": ("{split}/images", "{split}"),
    "{split}/labels.json": ("{split}/data", "{split}"),
    "{split}.json": ("images/{split}", "images", "{split}"),
}
"""Annotation file of a split, and possible folders of its images in order of preference."""

ONE_SPLIT = {
    "annotations/instances_default.json": ("images/default", "images"),
    "result.json": ("images", "."),
    "_annotations.coco.json": (".",),
    "labels.json": ("data", "images"),
}
"""Likewise for data sets without val."""

ANY_IMAGES = ("images", "data", ".")
"""Folders of the images of a data set with a single annotation file of any name."""

COCO_START = re.compile(rb'\s*\{\s*"(?:info|licenses|images|annotations|categories|type)"\s*:')
"""The first bytes of an annotation file: an object whose first key is one of COCO's."""

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True)
class SplitPaths:
    """The annotation file of a split and the folder of its images; both exist."""

    annotations: Path
    images: Path


def find_split(config: DataConfig, split: Split) -> SplitPaths:
    """Return the paths of a split: the explicit ones, or those that a layout of the data folder has. Raises UserError.

    For the generated data set, the caller first replaces "built-in" by its folder (`synthetic.resolve_built_in`).
    """
    if config.train_annotations is not None:
        annotations, images = getattr(config, f"{split}_annotations"), getattr(config, f"{split}_images")
        if annotations is None:
            raise UserError(
                "task.data.val_annotations is not set, and val is needed here (a search needs none); "
                "set it and task.data.val_images"
            )
        return SplitPaths(
            _existing(annotations, f"task.data.{split}_annotations", "file"),
            _existing(images, f"task.data.{split}_images", "folder"),
        )
    if not config.folder:
        raise UserError("no data set is named; give --data FOLDER, or task.data.folder in the configuration")
    folder = _set_folder(_existing(config.folder, "the data folder", "folder"))
    found = _find_split(folder, split)
    if found is None:
        looked_for = " nor ".join(pattern.format(split=split) for pattern in list(LAYOUTS)[:2])
        if split == "val" and _find_split(folder, "train") is not None:
            raise UserError(
                f"data folder {folder} has no val: it has neither {looked_for}, nor another layout's; a search needs "
                "none, but this does, so add it or give four paths: task.data.train_annotations, train_images, "
                "val_annotations and val_images"
            )
        raise UserError(
            f"data folder {folder} holds no COCO data set: it has neither {looked_for}, nor another layout's"
            f"{_json_files_words(folder)}; {_yolo_words(folder)}use one of the layouts in the docs (data.md), or give "
            "task.data.train_annotations and train_images"
        )
    return found


def is_coco_file(path: Path) -> bool:
    """Whether a file begins as COCO annotations do; it may be compressed by gzip."""
    if not path.name.casefold().endswith((".json", ".json.gz")) or not path.is_file():
        return False
    try:
        with gzip.open(path) if path.suffix.casefold() == ".gz" else open(path, "rb") as file:
            return COCO_START.match(file.read(4096).removeprefix(b"\xef\xbb\xbf")) is not None
    except (OSError, EOFError, zlib.error):
        return False


def split_of_file(file: Path) -> SplitPaths:
    """Return one annotation file of a data set with the folder of its images. Raises UserError without images."""
    folders = (file.parent, file.parent.parent)
    candidates = [
        images
        for folder in folders
        for split in SPLIT_NAMES
        for candidate, all_images in _candidates(folder, split)
        if candidate == file
        for images in all_images
    ]
    candidates += [folder / name for folder in folders for name in ANY_IMAGES]
    for images in candidates:
        if images.is_dir() and (images not in folders or _holds_images(images)):
            return SplitPaths(file, images)
    raise UserError(f"{file} has no folder of images beside it; name the folder that holds both, as docs (data.md) say")


def _yolo_words(folder: Path) -> str:
    """Return what to do with a data set in the format of YOLO, as the start of a remedy; nothing for any other."""
    is_yolo = any((folder / name).is_file() for name in ("data.yaml", "data.yml", "dataset.yaml"))
    is_yolo |= (
        any(folder.glob("labels/*.txt")) or any(folder.glob("*/labels/*.txt")) or any(folder.glob("labels/*/*.txt"))
    )
    return "this looks like YOLO's format; export or convert it to COCO and " if is_yolo else ""


def _set_folder(folder: Path) -> Path:
    """Return the folder that holds the data set: this one, or the only one below it that does. Raises UserError."""
    if any(_find_split(folder, split) for split in SPLIT_NAMES):
        return folder
    below = [path for path in _sorted(folder) if path.is_dir() and not path.name.startswith(".") and _holds_train(path)]
    if len(below) > 1:
        names = ", ".join(repr(path.name) for path in below)
        raise UserError(f"data folder {folder} holds {len(below)} data sets: {names}; name one of these folders")
    return below[0] if below else folder


def _holds_train(folder: Path) -> bool:
    try:
        return _find_split(folder, "train") is not None
    except UserError:  # a part of a data set
        return False


def _find_split(folder: Path, split: Split) -> SplitPaths | None:
    """Return the paths of a split; None if no layout's annotation file is there. Raises UserError without images."""
    for file, candidates in _candidates(folder, split):
        if file.is_file():
            for images in candidates:
                if images.is_dir() and (images != folder or _holds_images(folder)):
                    return SplitPaths(file, images)
            raise UserError(
                f"data folder {folder} has {file.relative_to(folder)} but no images: a folder "
                f"{' or '.join(_shown(images, folder) for images in candidates)} is needed"
            )
    return None


def _candidates(folder: Path, split: Split) -> Iterator[tuple[Path, list[Path]]]:
    """Yield annotation files that may exist, with the folders that their images may be in."""

    def both(pattern: str, image_patterns: tuple[str, ...], name: str) -> Iterator[tuple[Path, list[Path]]]:
        images = [folder / image.format(split=name) for image in image_patterns]
        for suffix in ("", ".gz"):
            yield folder / (pattern.format(split=name) + suffix), images

    for pattern, images in LAYOUTS.items():
        for name in SPLIT_NAMES[split]:
            yield from both(pattern, images, name)
    if split == "train":
        for pattern, images in ONE_SPLIT.items():
            yield from both(pattern, images, "")
        files = _json_files(folder)
        if len(files) == 1 and not _is_of_another_split(files[0]):
            yield files[0], [folder / images for images in ANY_IMAGES]


def _is_of_another_split(file: Path) -> bool:
    stem = file.name.casefold()
    return any(name in stem for name in ("val", "test"))


def _json_files(folder: Path) -> list[Path]:
    """Return the JSON files of a data set whose names are no layout's."""
    return [
        path
        for parent in (folder, folder / "annotations")
        if parent.is_dir()
        for path in _sorted(parent)
        if path.name.casefold().endswith((".json", ".json.gz")) and path.is_file()
    ]


def _json_files_words(folder: Path) -> str:
    files = [str(path.relative_to(folder)) for path in _json_files(folder)]
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return f" (it has {', '.join(files[:3])}{more})" if files else ""


def _holds_images(folder: Path) -> bool:
    return any(path.suffix.casefold() in IMAGE_SUFFIXES for path in folder.iterdir())


def _sorted(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"cannot list the folder {folder}: {error.strerror}; check its permissions") from error


def _shown(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path != folder else "of this file with images"


def _existing(path: str, what: str, kind: Literal["file", "folder"]) -> Path:
    found = Path(path).expanduser()
    if not (found.is_file() if kind == "file" else found.is_dir()):
        problem = f"is not a {kind}" if found.exists() else "does not exist"
        raise UserError(f"{what} is {path}, which {problem}; check the path")
    return found
