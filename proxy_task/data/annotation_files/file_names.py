"""Finds the image files of an annotation file whose file names are written in another way than on the disk.

Tools write backslashes, URL encoding, leading folders, another case or another Unicode form. A file that is found under
its written name is never looked for elsewhere, and a plain data set costs one `stat` per image.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from spinenas.proxy_task.data.annotations import Annotations
from spinenas.proxy_task.data.findings import Finding

BACKSLASH = "file names with backslashes, read as slashes"
URL = "file names with URL encoding, decoded"
SPELLING = "file names in another case or Unicode form than the files, matched"
LEADING = "file names with leading folders that the image folder does not have, left out"
BELOW = "file names without the sub-folder that the file is in, found there"
KINDS = (BACKSLASH, URL, LEADING, BELOW, SPELLING)
"""What can differ between a file name and its file, in the order of the findings."""


def find_files(annotations: Annotations) -> Annotations:
    """Return the annotations with the names under which the files exist, and a finding for each kind of difference.

    A file that is not found keeps its written name; opening it reports it as missing. Two different names never lead
    to the same file unless they differ in spelling alone.
    """
    names, folder = annotations.file_names, annotations.images_folder
    missing = [row for row, name in enumerate(names) if not _exists(folder, name)]
    if not missing or not folder.is_dir():
        return annotations
    found = _find_missing(folder, names, missing)
    if not found:
        return annotations
    resolved = list(names)
    counts: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for row, (name, kinds) in found.items():
        resolved[row] = name
        for kind in kinds:
            counts[kind].append(names[row])
    findings = tuple(
        Finding(kind, len(written), len(names), repr(written[0])) for kind, written in counts.items() if written
    )
    return replace(
        annotations,
        file_names=tuple(resolved),
        names_in_file=names,
        findings=(*annotations.findings, *findings),
    )


def _exists(folder: Path, name: str) -> bool:
    try:
        return os.path.lexists(os.path.join(folder, name))
    except ValueError:  # a NUL, or a name that the locale cannot encode
        return False


@dataclass(slots=True)
class _Index:
    """All files below a folder. A key that stands for several files maps to None.

    Attributes:
        paths: relative paths by normalised relative path.
        base_names: relative paths by normalised last part.
    """

    paths: dict[str, str | None] = field(default_factory=dict)
    base_names: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> _Index:
        index = cls()
        for parent, _, files in os.walk(folder):
            below = os.path.relpath(parent, folder)
            for name in files:
                path = name if below == "." else f"{below}/{name}"
                _add(index.paths, _normal(path), path)
                _add(index.base_names, _normal(name), path)
        return index


def _add(paths: dict[str, str | None], key: str, path: str) -> None:
    paths[key] = None if key in paths else path


def _normal(name: str) -> str:
    """Return a name without its case and Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _find_missing(folder: Path, names: Sequence[str], missing: list[int]) -> dict[int, tuple[str, set[str]]]:
    """Return the file and the differences in its name, by row, of the files that can be found."""
    index = _Index.of(folder)
    found: dict[int, tuple[str, set[str]]] = {}
    sources: dict[str, set[str]] = {}
    for row in missing:
        if match := _match(index, names[row]):
            found[row] = match
            sources.setdefault(match[0], set()).add(_normal(_plain(names[row])))
    # Where folders were left out or added, files of the same name may be different pictures.
    is_missing = np.zeros(len(names), dtype=bool)
    is_missing[missing] = True
    moved = {name for name, kinds in found.values() if kinds & {LEADING, BELOW}}
    taken = {name for row, name in enumerate(names) if not is_missing[row] and name in moved}
    return {
        row: (name, kinds)
        for row, (name, kinds) in found.items()
        if not kinds & {LEADING, BELOW} or _is_safe(folder, name, names[row], sources[name], name in taken)
    }


def _is_safe(folder: Path, name: str, written: str, sources: set[str], is_taken: bool) -> bool:
    """Whether a file that is in another folder than written is surely the one that is meant."""
    is_prefix = _normal(_plain(written)) in {_normal(f"{folder.name}/{name}"), _normal(f"images/{name}")}
    return is_prefix or (len(sources) == 1 and not is_taken)


def _plain(name: str) -> str:
    return unquote(name).replace("\\", "/")


def _match(index: _Index, name: str) -> tuple[str, set[str]] | None:
    for spelling, kinds in _spellings(name):
        parts = [part for part in spelling.split("/") if part not in ("", ".", "..")]
        for start in range(len(parts)):
            path = index.paths.get(_normal("/".join(parts[start:])))
            if path is not None:
                kinds = kinds | ({LEADING} if start else set())
                return path, kinds | ({SPELLING} if path != "/".join(parts[start:]) else set())
        if parts and (path := index.base_names.get(_normal(parts[-1]))) is not None:
            kinds = kinds | {LEADING if len(parts) > 1 else BELOW}
            return path, kinds | ({SPELLING} if path.rpartition("/")[2] != parts[-1] else set())
    return None


def _spellings(name: str) -> Iterator[tuple[str, set[str]]]:
    """Yield ways to read a name, the nearest to the written one first, with their kinds of difference."""
    changes: tuple[tuple[str, Callable[[str], str]], ...] = (
        (BACKSLASH, lambda text: text.replace("\\", "/")),
        (URL, unquote),
    )
    for chosen in ((), changes[:1], changes[1:], changes):
        text = name
        kinds: set[str] = set()
        for kind, change in chosen:
            changed = change(text)
            if changed != text:
                text, kinds = changed, kinds | {kind}
        if len(kinds) == len(chosen):
            yield text, kinds
