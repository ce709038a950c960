"""The description that every exported file carries: which network it is, where it comes from, and if it is trained.

It is a JSON object. A safetensors or ONNX file has it as text in its metadata, an exported Python file as a literal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args, get_type_hints

from spinenas.space.baseline import Architecture, architecture_from_text
from spinenas.space.dialect import DIALECTS
from spinenas.space.errors import GenotypeError, UserError, nearest
from spinenas.space.graph import network_key
from spinenas.space.scaling import Scaling

SCHEMA = "spinenas-export/1"

METADATA_KEY = "spinenas"
"""Key of the description in the metadata of safetensors and ONNX files."""

Weights = Literal["none", "random", "trained"]
"""What the weights of an exported file are; "none" for a format without weights."""

ACTIVATIONS = ("relu", "swish")


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """Options of `build_backbone` other than architecture and scaling."""

    dialect: str = "tensorflow/tpu"
    activation: str = "relu"
    bn_momentum: float | None = None
    bn_eps: float | None = None


def spinenas_version() -> str:
    """Return the installed version of spinenas."""
    import importlib.metadata  # takes longer to import than a command needs to start

    try:
        return importlib.metadata.version("spinenas")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True, slots=True)
class ExportDescription:
    """An exported network.

    Attributes:
        name: name of a published model or of a file, or the run and number of a trial.
        architecture, scaling: the network.
        options: its options; None if they are unknown, as those of another program's block specs.
        weights: what the weights in the file are.
        run, trial: the folder of the run and the number of the trial that it comes from, if it does.
        version: version of spinenas that wrote the file.
    """

    name: str
    architecture: Architecture
    scaling: Scaling
    options: NetworkOptions | None = None
    weights: Weights = "none"
    run: str | None = None
    trial: int | None = None
    version: str = field(default_factory=spinenas_version)

    @property
    def source(self) -> str:
        """Where the network comes from, in words."""
        return self.name if self.run is None else f"trial {self.trial} of {self.run}"

    def to_json(self) -> dict[str, Any]:
        """Return the description as a JSON object."""
        options = dict.fromkeys(field.name for field in fields(NetworkOptions))
        if self.options is not None:
            options = asdict(self.options)
        return {
            "schema": SCHEMA,
            "name": self.name,
            "network_key": network_key(self.architecture),
            "architecture": self.architecture.text,
            "scaling": asdict(self.scaling),
            **options,
            "weights": self.weights,
            "run": self.run,
            "trial": self.trial,
            "spinenas": self.version,
        }

    def to_text(self) -> str:
        """Return the description as JSON text."""
        return json.dumps(self.to_json())


_TYPES: dict[str, type | tuple[type, ...]] = {
    "schema": str,
    "name": str,
    "network_key": str,
    "architecture": str,
    "scaling": dict,
    "dialect": (str, type(None)),
    "activation": (str, type(None)),
    "bn_momentum": (float, int, type(None)),
    "bn_eps": (float, int, type(None)),
    "weights": str,
    "run": (str, type(None)),
    "trial": (int, type(None)),
    "spinenas": str,
}
"""The fields of a description, and the types that each can have."""


_CHOICES: dict[str, tuple[str | None, ...]] = {
    "dialect": (None, *DIALECTS),
    "activation": (None, *ACTIVATIONS),
    "weights": get_args(Weights),
}
"""The values of the fields that have few."""


def parse_description(data: object) -> ExportDescription:
    """Parse what `ExportDescription.to_json` returned. Raises UserError."""
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise UserError(f"its metadata is not a description of schema {SCHEMA}; export it again")
    for name in data:
        if name not in _TYPES:
            raise UserError(f"its metadata has the unknown field {name!r}; read it with a newer spinenas")
    for name, types in _TYPES.items():
        if name not in data:
            raise UserError(f"its metadata lacks the field {name!r}; export it again")
        if not isinstance(data[name], types) or isinstance(data[name], bool):
            raise UserError(f"its metadata has {name} {data[name]!r}, which is of the wrong type; export it again")
    for name, known in _CHOICES.items():
        if data[name] not in known:
            remedy = nearest(str(data[name]), filter(None, known))
            raise UserError(f"its metadata has {name} {data[name]!r}{remedy}; export it again")
    if (data["dialect"] is None) != (data["activation"] is None):
        raise UserError("its metadata has only one of dialect and activation; export it again")
    architecture = architecture_from_text(data["architecture"])
    if network_key(architecture) != data["network_key"]:
        raise UserError(
            f"its metadata has the network key {data['network_key']}, but its architecture has "
            f"{network_key(architecture)}; export it again"
        )
    options = None
    if data["dialect"] is not None:
        options = NetworkOptions(**{option.name: data[option.name] for option in fields(NetworkOptions)})
    return ExportDescription(
        name=data["name"],
        architecture=architecture,
        scaling=parse_scaling(data["scaling"]),
        options=options,
        weights=data["weights"],
        run=data["run"],
        trial=data["trial"],
        version=data["spinenas"],
    )


def is_description(text: str) -> bool:
    """Whether a text is what `ExportDescription.to_text` returns, valid or not."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("schema") == SCHEMA


def parse_description_text(text: str | None) -> ExportDescription:
    """Parse what `ExportDescription.to_text` returned. Raises UserError."""
    try:
        return parse_description(json.loads(text or "null"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError("its metadata is not JSON; export it again") from error


def parse_scaling(data: object, names: Mapping[str, str] | None = None) -> Scaling:
    """Parse a scaling; `names` maps its names in the file to fields of Scaling. Raises UserError."""
    names = {option.name: option.name for option in fields(Scaling)} if names is None else names
    if not isinstance(data, dict):
        raise GenotypeError(f"scaling is {data!r}; it must be an object with the fields {', '.join(names)}")
    check_fields("scaling", data, tuple(names))
    types = get_type_hints(Scaling)
    for name, field_name in names.items():
        if name not in data:
            raise GenotypeError(f"scaling has no field {name}; it has {', '.join(names)}")
        wanted = types[field_name]
        # a JSON true is an int in Python, and a float may be written as an int
        if not isinstance(data[name], (int, float) if wanted is float else wanted) or isinstance(data[name], bool):
            raise GenotypeError(f"scaling has {name} {data[name]!r}; it must be of type {wanted.__name__}")
    return Scaling(**{field_name: data[name] for name, field_name in names.items()})


def check_fields(name: str, data: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuse unknown fields: a misspelt is_output would otherwise silently lose an output."""
    for field_name in data:
        if field_name not in known:
            raise GenotypeError(f"{name} has the unknown field {field_name!r}{nearest(field_name, known)}")
