"""Weights files: a trained detector as one safetensors file, with everything needed to build the network again.

Tensors have the names of the network's state dict. A JSON text in the file's metadata describes the network. Nothing in
such a file is executed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pydantic
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from spinenas.proxy_task.config import is_image_size
from spinenas.proxy_task.detector.retinanet import RetinaNet, build_retinanet
from spinenas.proxy_task.weights.coco_categories import COCO_CATEGORIES
from spinenas.results.export.description import METADATA_KEY
from spinenas.results.storage.atomic_write import write_bytes_atomically
from spinenas.space.baseline import architecture_from_text
from spinenas.space.dialect import dialect_named
from spinenas.space.errors import UserError, explained_os_errors
from spinenas.space.head import HeadConfig, published_head
from spinenas.space.published import PublishedModel
from spinenas.space.scaling import Scaling
from spinenas.space.tensorflow.weights import mismatches

SCHEMA = "spinenas-weights/1"


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """Description of a detector, without its weights.

    Attributes:
        name: name of the detector.
        architecture: text of a genotype or a baseline.
        scaling: width, alpha and repeats.
        head: towers and anchors.
        category_ids: class channel i + 1 means the i-th of them; channel 0 is unused.
        category_names: their names; "" for a channel without a category.
        image_size_pixels: side of the square input in training.
        dialect, activation, bn_momentum, bn_eps: arguments of `build_backbone`.
        plus_one_decoding: whether boxes are decoded in the "+1 pixel" convention.
    """

    name: str
    architecture: str
    scaling: Scaling
    head: HeadConfig
    category_ids: tuple[int, ...]
    category_names: tuple[str, ...]
    image_size_pixels: int
    dialect: str = "tensorflow/tpu"
    activation: str = "relu"
    bn_momentum: float | None = None
    bn_eps: float | None = None
    plus_one_decoding: bool = False

    def __post_init__(self) -> None:
        dialect_named(self.dialect)
        architecture_from_text(self.architecture)
        if len(set(self.category_ids)) != len(self.category_ids) or len(self.category_names) != len(self.category_ids):
            raise UserError("its category ids are not distinct, or do not each have one name")
        if not is_image_size(self.image_size_pixels):
            raise UserError(f"its image size is {self.image_size_pixels}; it must be a multiple of 32, and at least 96")
        if self.bn_eps is not None and not self.bn_eps > 0:
            raise UserError(f"its bn_eps is {self.bn_eps}; it must be positive")

    def is_of(self, model: PublishedModel) -> bool:
        """Whether this is the published detector, in any dialect and with any activation."""
        published = published_detector(model, dialect=self.dialect, activation=self.activation)
        return replace(published, name=self.name, bn_momentum=self.bn_momentum, bn_eps=self.bn_eps) == self

    def build(self, *, stochastic_depth: float = 0.0, generator: torch.Generator | None = None) -> RetinaNet:
        """Build the network with initial weights, as `build_retinanet` does. Raises UserError."""
        return build_retinanet(
            architecture_from_text(self.architecture),
            self.scaling,
            self.head,
            class_channels=len(self.category_ids) + 1,
            dialect=self.dialect,
            activation=self.activation,
            bn_momentum=self.bn_momentum,
            bn_eps=self.bn_eps,
            stochastic_depth=stochastic_depth,
            generator=generator,
        )


def published_detector(
    model: PublishedModel, *, dialect: str, activation: str, bn_eps: float | None = None
) -> DetectorSpec:
    """Return the detector of released weights: 91 class channels, head and anchors as published.

    A class channel is a COCO category id. Ten of the ids from 1 to 90 are not in use.
    """
    return DetectorSpec(
        model.name,
        model.architecture.text,
        model.scaling,
        published_head(model, dialect),
        tuple(range(1, 91)),
        tuple(COCO_CATEGORIES.get(category_id, "") for category_id in range(1, 91)),
        model.image_size_pixels,
        dialect=dialect,
        activation=activation,
        bn_eps=bn_eps,
        plus_one_decoding=dialect_named(dialect).decode_plus_one,
    )


def save_detector(path: Path, network: RetinaNet, spec: DetectorSpec) -> None:
    """Write a weights file atomically. Raises UserError."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    document = {"schema": SCHEMA, **asdict(spec)}
    with explained_os_errors(f"cannot write {path}", "choose another folder, or make room"):
        write_bytes_atomically(path, save(tensors, {METADATA_KEY: json.dumps(document)}))


def load_detector(path: Path) -> tuple[RetinaNet, DetectorSpec]:
    """Read a weights file; the detector is in evaluation mode, on the CPU. Raises UserError."""
    spec = read_spec(path)
    try:
        network = spec.build()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    load_tensors(path, network)
    return network.eval(), spec


def load_tensors(path: Path, network: nn.Module) -> None:
    """Load the tensors of a file into the network that it describes. Raises UserError if names or shapes differ."""
    with _open_file(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    wanted, found = ({name: tuple(t.shape) for name, t in each.items()} for each in (network.state_dict(), tensors))
    missing, extra, wrong = mismatches(wanted, found)
    for what, names in (("has no", missing), ("has the unknown", extra), ("has another shape of", wrong)):
        if names:
            raise UserError(
                f"{path} does not hold the network that it describes: it {what} {names[0]}"
                f"{f' and {len(names) - 1} more' if len(names) > 1 else ''}; write it again"
            )
    network.load_state_dict(tensors)


def read_spec(path: Path) -> DetectorSpec:
    """Read the description of the network in a weights file. Raises UserError."""
    return _spec_of(read_header(path)[0], path)


def read_header(path: Path) -> tuple[Mapping[str, str], list[str]]:
    """Read the metadata of a safetensors file, and the names of its tensors. Raises UserError."""
    with _open_file(path) as file:
        return file.metadata() or {}, list(file.keys())


@contextmanager
def _open_file(path: Path) -> Iterator[Any]:
    with explained_os_errors(f"cannot read {path}", "name another file"):
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except FileNotFoundError as error:
            raise UserError(f"there is no file {path}; name a weights file") from error
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{path} is not a complete safetensors file ({error}); name another, or fetch it again"
            ) from error


def _spec_of(metadata: Mapping[str, str], path: Path) -> DetectorSpec:
    try:
        document: Any = json.loads(metadata.get(METADATA_KEY, "null"))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.pop("schema", None) != SCHEMA:
        raise UserError(
            f"{path} has no description of its network ({METADATA_KEY} of schema {SCHEMA} in its metadata); "
            "name a weights file that `convert` or `replay` wrote"
        )
    unknown = document.keys() - {field.name for field in fields(DetectorSpec)}
    if unknown:
        raise UserError(
            f"{path} describes its network with the unknown field {min(unknown)!r}; read it with a newer spinenas"
        )
    try:
        return pydantic.TypeAdapter(DetectorSpec).validate_python(document)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path} describes an invalid network: {where}{what}; write it again") from error
