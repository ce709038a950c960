"""Cache of parsed annotation files: each is parsed once per machine, and all processes map it into memory.

An entry is a folder with an .npy file for each array, `about.json` for the rest, and `sha256` of them all. Its name is
the hash of the annotation file's content, so that neither the path of the file nor the images folder matters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from spinenas.proxy_task.data.annotation_files.annotation_file import complete, parse_annotations
from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.cache_folder import build_once
from spinenas.proxy_task.data.findings import Finding, log_findings
from spinenas.proxy_task.data.images.image_file import ExifRule
from spinenas.proxy_task.data.images.image_sizes import cached_header_sizes
from spinenas.space.errors import UserError

FORMAT_VERSION = 3
"""Part of every entry's name; raise it when parsing the same file would give other arrays."""

ARRAYS = (
    "image_ids",
    "widths",
    "heights",
    "category_ids",
    "box_offsets",
    "boxes_xywh",
    "labels",
    "areas",
    "iscrowd",
    "annotation_ids",
)
NAMES = ("file_names", "groups")
"""Attributes with a string for each image."""


class StringArray(Sequence[str]):
    """Strings stored as one array of bytes, which processes can share. A string is decoded when it is accessed.

    Attributes:
        utf8: bytes of all strings, one after the other.
        offsets: (N + 1,); string i is utf8[offsets[i]:offsets[i + 1]].
    """

    def __init__(self, utf8: NDArray[np.uint8], offsets: NDArray[np.int64]):
        self.utf8, self.offsets = utf8, offsets

    @classmethod
    def of(cls, names: Sequence[str]) -> StringArray:
        encoded = [name.encode("utf-8", "surrogatepass") for name in names]  # JSON may contain half of a surrogate pair
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        rows = range(len(self))[index]
        if isinstance(rows, range):
            return tuple(self[row] for row in rows)
        span = slice(self.offsets[rows], self.offsets[rows + 1])
        return self.utf8[span].tobytes().decode("utf-8", "surrogatepass")


def open_annotations(path: Path, images_folder: Path, root: Path, *, exif: ExifRule = "auto") -> Annotations:
    """Do what `read_annotations` does, using the cache in `root`. A damaged entry is rebuilt. Raises UserError."""
    try:
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    folder = root / f"annotations-{FORMAT_VERSION}-{sha256[:16]}"

    def build(target: Path) -> None:
        annotations = parse_annotations(path, images_folder, sha256=sha256)
        try:
            _write(target, annotations)
        except OSError as error:
            raise UserError(f"cannot write the annotations into the cache {root}: {error.strerror}") from error

    build_once(folder, build, is_intact=_is_intact)
    annotations = complete(_read(folder, images_folder), path, partial(cached_header_sizes, root=root), exif)
    log_findings(annotations.findings, path)
    return annotations


def _write(folder: Path, annotations: Annotations) -> None:
    folder.mkdir()
    for name, array in _arrays(annotations).items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    about = {
        "category_names": annotations.category_names,
        "findings": [asdict(finding) for finding in annotations.findings],
    }
    (folder / "about.json").write_text(json.dumps(about), encoding="ascii")
    (folder / "sha256").write_text(_digest(folder), encoding="ascii")


def _read(folder: Path, images_folder: Path) -> Annotations:
    def array(name: str) -> NDArray[Any]:
        # A plain array over the mapped file: slices of a memmap object are slow.
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))

    about = json.loads((folder / "about.json").read_text(encoding="ascii"))
    arrays: dict[str, Any] = {name: array(name) for name in ARRAYS}
    names: dict[str, Any] = {name: StringArray(array(f"{name}_utf8"), array(f"{name}_offsets")) for name in NAMES}
    return Annotations(
        images_folder=images_folder,
        **arrays,
        **names,
        category_names=tuple(about["category_names"]),
        findings=tuple(Finding(**finding) for finding in about["findings"]),
    )


def _arrays(annotations: Annotations) -> dict[str, NDArray[Any]]:
    """Return the arrays of an entry by file name."""
    arrays = {name: getattr(annotations, name) for name in ARRAYS}
    for name in NAMES:
        names = StringArray.of(getattr(annotations, name))
        arrays |= {f"{name}_utf8": names.utf8, f"{name}_offsets": names.offsets}
    return arrays


def _is_intact(folder: Path) -> bool:
    """Whether an entry exists and its checksum is right."""
    try:
        return (folder / "sha256").read_bytes() == _digest(folder).encode()
    except OSError:
        return False


def _digest(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of an entry's files."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name != "sha256":
            with open(path, "rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
