"""Writes genotypes to files, and reads them back.

json: genotype JSON with its scaling.
block-specs: rows `[level, block_fn, [parent, parent], is_output]`, from which the SpineNet code of tensorflow/tpu and
tensorflow/models builds networks, with an entry for its scaling table.

Both have the field `metadata`, the description of the network. A plain list of rows is read too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spinenas.results.export.description import ExportDescription, check_fields, parse_description, parse_scaling
from spinenas.results.export.source_reading import as_block_specs, block_table, exported_description, parse_source
from spinenas.results.storage.atomic_write import check_destination, write_chosen_file
from spinenas.space.baseline import genotype_of
from spinenas.space.errors import GenotypeError, UserError, explained_os_errors, nearest
from spinenas.space.genotype import SCHEMA as GENOTYPE_SCHEMA
from spinenas.space.genotype import Genotype
from spinenas.space.scaling import Scaling

BLOCK_SPECS_SCHEMA = "spinenas-block-specs/1"

_SCALING_OF_BLOCK_SPECS = {
    "name": "name",
    # names in SCALING_MAP of both Google code bases
    "endpoints_num_filters": "endpoint_channels",
    "filter_size_scale": "filter_scale",
    "resample_alpha": "resample_alpha",
    "block_repeats": "block_repeats",
}
"""Fields of Scaling by their names in a block-specs file."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """What a file of an architecture holds.

    Attributes:
        genotype: the architecture.
        scaling: its width and depth; None if the file names none.
        description: the metadata of an export; None for a file of another program.
    """

    genotype: Genotype
    scaling: Scaling | None = None
    description: ExportDescription | None = None


def _genotype_document(genotype: Genotype, description: ExportDescription) -> str:
    document = {**genotype.to_json(), "scaling": asdict(description.scaling), "metadata": description.to_json()}
    return json.dumps(document, indent=2)


def _block_specs_document(genotype: Genotype, description: ExportDescription) -> str:
    scaling = description.scaling
    head = {
        "schema": BLOCK_SPECS_SCHEMA,
        "metadata": description.to_json(),
        "scaling": {name: getattr(scaling, field) for name, field in _SCALING_OF_BLOCK_SPECS.items()},
        "stem": [[block.level, str(block.kind)] for block in genotype.stem],
    }
    rows = [
        json.dumps([block.level, str(block.kind), list(block.parents), block.is_output]) for block in genotype.blocks
    ]
    first = json.dumps(head, indent=2).removesuffix("\n}")
    one_per_line = ",\n    ".join(rows)  # as in the original code
    return f'{first},\n  "block_specs": [\n    {one_per_line}\n  ]\n}}'


FORMATS: dict[str, Callable[[Genotype, ExportDescription], str]] = {
    "json": _genotype_document,
    "block-specs": _block_specs_document,
}
"""Functions that return the text of a file, by name of the format."""


def export_genotype(genotype: Genotype, path: Path, *, format: str, scaling: Scaling, force: bool = False) -> None:
    """Write a genotype to a file atomically, with nothing known of where it comes from. Raises UserError.

    Args:
        genotype: the genotype.
        path: path of the file.
        format: one of FORMATS.
        scaling: width and depth with which to build it.
        force: replace an existing file.
    """
    export_description(ExportDescription(genotype.key, genotype, scaling), path, format=format, force=force)


def export_description(description: ExportDescription, path: Path, *, format: str, force: bool = False) -> None:
    """Write a network to a file in one of FORMATS, atomically. Raises UserError, also for a baseline."""
    if format not in FORMATS:
        raise UserError(f"export format {format!r} is unknown{nearest(format, FORMATS)}")
    genotype = genotype_of(description.architecture, description.name)
    check_destination(path, force=force)
    write_chosen_file(path, f"{FORMATS[format](genotype, description)}\n".encode())


def read_genotype(path: Path) -> Genotype:
    """Read the genotype of a file, without its scaling. Raises UserError."""
    return read_file(path).genotype


def read_architecture(path: Path) -> tuple[Genotype, Scaling | None]:
    """Read the genotype of a file, and its scaling if the file names one. Raises UserError."""
    content = read_file(path)
    return content.genotype, content.scaling


def read_file(path: Path) -> FileContent:
    """Read a file in one of FORMATS, or Python source: an export, or a block table. Raises UserError.

    Parents may be in any order.
    """
    with explained_os_errors(f"cannot read the genotype {path}", "name an exported file"):
        content = path.read_bytes()
    if path.suffix == ".py":
        tree = parse_source(content, path)
        description = exported_description(tree, content, path)
        if description is not None:
            genotype = genotype_of(description.architecture, str(path))
            return FileContent(genotype, description.scaling, description)
        data: Any = {"schema": BLOCK_SPECS_SCHEMA} | block_table(tree, path)
    else:
        try:
            data = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path} is not JSON; name a file of the format json or block-specs (the name of a file with weights "
                "ends in .safetensors or .onnx, and that of Python source in .py)"
            ) from error
    try:
        return _parse(data)
    except UserError as error:
        raise type(error)(f"{path}: {error}") from error


def _parse(data: Any) -> FileContent:
    if isinstance(data, list) and data and all(isinstance(row, list) and len(row) == 4 for row in data):
        data = {"schema": BLOCK_SPECS_SCHEMA} | as_block_specs(data)
    if not isinstance(data, dict):
        raise GenotypeError("an exported genotype is a JSON object with the field schema, or a list of block specs")
    schema = data.get("schema")
    names = {field: field for field in _SCALING_OF_BLOCK_SPECS.values()}
    scaling = data.get("scaling")
    metadata = data.get("metadata")
    if schema == BLOCK_SPECS_SCHEMA:
        check_fields("the file", data, ("schema", "metadata", "scaling", "stem", "block_specs"))
        data, names = _from_rows(data), _SCALING_OF_BLOCK_SPECS
    elif schema == GENOTYPE_SCHEMA:
        check_fields("the file", data, ("schema", "stem", "blocks", "scaling", "metadata"))
    else:
        raise GenotypeError(f"schema is {schema!r}; known are {GENOTYPE_SCHEMA!r} and {BLOCK_SPECS_SCHEMA!r}")
    content = FileContent(
        Genotype.from_json(_with_sorted_parents(data)), None if scaling is None else parse_scaling(scaling, names)
    )
    if metadata is None:
        return content
    description = parse_description(metadata)
    if (description.architecture, description.scaling) != (content.genotype, content.scaling):
        raise UserError("its blocks or its scaling are not those of its metadata; after an edit, remove the metadata")
    return replace(content, description=description)


def _from_rows(data: dict[str, Any]) -> dict[str, Any]:
    """Convert block specs to genotype JSON. Shapes are checked here, values by Genotype."""
    stem, rows = data.get("stem"), data.get("block_specs")
    if not isinstance(stem, list) or not isinstance(rows, list):
        raise GenotypeError("block specs need the lists stem and block_specs")
    for node, row in enumerate(stem):
        if not isinstance(row, list) or len(row) != 2:
            raise GenotypeError(f"stem block {node} is {row!r}; it must be a row [level, block_fn]")
    for node, row in enumerate(rows, start=len(stem)):
        if not isinstance(row, list) or len(row) != 4:
            raise GenotypeError(
                f"block {node} is {row!r}; it must be a row [level, block_fn, [parent, parent], is_output]"
            )
    return {
        "schema": GENOTYPE_SCHEMA,
        "stem": [{"level": level, "kind": kind} for level, kind in stem],
        "blocks": [
            {"level": level, "kind": kind, "parents": parents, "is_output": is_output}
            for level, kind, parents, is_output in rows
        ],
    }


def _with_sorted_parents(data: dict[str, Any]) -> dict[str, Any]:
    """Sort valid parents in ascending order; their sum does not depend on it."""
    stem, blocks = data.get("stem"), data.get("blocks")
    if not isinstance(stem, list) or not isinstance(blocks, list):
        return data
    rows = []
    for node, row in enumerate(blocks, start=len(stem)):
        if isinstance(row, dict):
            check_fields(f"block {node}", row, ("level", "kind", "parents", "is_output"))
            parents = row.get("parents")
            if isinstance(parents, list) and all(type(parent) is int for parent in parents):
                row = {**row, "parents": sorted(parents)}
        rows.append(row)
    return {**data, "blocks": rows}
