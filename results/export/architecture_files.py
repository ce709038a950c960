"""Writes genotypes to files, and reads them back.

json: genotype JSON with its scaling.
block-specs: rows `[level, block_fn, [parent, parent], is_output]`, from which the SpineNet code of tensorflow/tpu and
tensorflow/models builds networks, with an entry for its scaling table.

Both formats can be read, and so can Python source with exactly one list of such rows, such as `spinenet.py` of either
code base. Nothing in that source is executed.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

from spinenas.results.export.python_source import END_OF_ARCHITECTURE
from spinenas.results.storage.atomic_write import check_destination, write_chosen_file
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


def _genotype_document(genotype: Genotype, scaling: Scaling) -> str:
    return json.dumps({**genotype.to_json(), "scaling": asdict(scaling)}, indent=2)


def _block_specs_document(genotype: Genotype, scaling: Scaling) -> str:
    head = {
        "schema": BLOCK_SPECS_SCHEMA,
        "scaling": {name: getattr(scaling, field) for name, field in _SCALING_OF_BLOCK_SPECS.items()},
        "stem": [[block.level, str(block.kind)] for block in genotype.stem],
    }
    rows = [
        json.dumps([block.level, str(block.kind), list(block.parents), block.is_output]) for block in genotype.blocks
    ]
    first = json.dumps(head, indent=2).removesuffix("\n}")
    one_per_line = ",\n    ".join(rows)  # as in the original code
    return f'{first},\n  "block_specs": [\n    {one_per_line}\n  ]\n}}'


FORMATS: dict[str, Callable[[Genotype, Scaling], str]] = {
    "json": _genotype_document,
    "block-specs": _block_specs_document,
}
"""Functions that return the text of a file, by name of the format."""


def export_genotype(genotype: Genotype, path: Path, *, format: str, scaling: Scaling, force: bool = False) -> None:
    """Write a genotype to a file atomically. Raises UserError.

    Args:
        genotype: the genotype.
        path: path of the file.
        format: one of FORMATS.
        scaling: width and depth with which to build it.
        force: replace an existing file.
    """
    if format not in FORMATS:
        raise UserError(f"export format {format!r} is unknown{nearest(format, FORMATS)}")
    check_destination(path, force=force)
    write_chosen_file(path, f"{FORMATS[format](genotype, scaling)}\n".encode())


def read_genotype(path: Path) -> Genotype:
    """Read the genotype of an exported file, without its scaling. Raises UserError."""
    return read_architecture(path)[0]


def read_architecture(path: Path) -> tuple[Genotype, Scaling | None]:
    """Read a file in one of FORMATS, or FILE.py with rows. Parents may be in any order. Raises UserError.

    Returns:
        The genotype, and the scaling if the file contains one.
    """
    with explained_os_errors(f"cannot read the genotype {path}", "name an exported file"):
        content = path.read_bytes()
    try:
        data = _from_source(content, path) if path.suffix == ".py" else json.loads(content)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not JSON; name a file of the format json or block-specs (the name of a weights file ends in "
            ".safetensors)"
        ) from error
    try:
        return _parse(data)
    except UserError as error:
        raise type(error)(f"{path}: {error}") from error


def _parse(data: Any) -> tuple[Genotype, Scaling | None]:
    if not isinstance(data, dict):
        raise GenotypeError("an exported genotype is a JSON object with the field schema")
    schema = data.get("schema")
    names = {field: field for field in _SCALING_OF_BLOCK_SPECS.values()}
    scaling = data.get("scaling")
    if schema == BLOCK_SPECS_SCHEMA:
        _check_fields("the file", data, ("schema", "scaling", "stem", "block_specs"))
        data, names = _from_rows(data), _SCALING_OF_BLOCK_SPECS
    elif schema == GENOTYPE_SCHEMA:
        _check_fields("the file", data, ("schema", "stem", "blocks", "scaling"))
    else:
        raise GenotypeError(f"schema is {schema!r}; known are {GENOTYPE_SCHEMA!r} and {BLOCK_SPECS_SCHEMA!r}")
    genotype = Genotype.from_json(_with_sorted_parents(data))
    return genotype, None if scaling is None else _parse_scaling(scaling, names)


def _parse_scaling(data: Any, names: dict[str, str]) -> Scaling:
    """Parse a scaling; `names` maps its names in the file to fields of Scaling."""
    if not isinstance(data, dict):
        raise GenotypeError(f"scaling is {data!r}; it must be an object with the fields {', '.join(names)}")
    _check_fields("scaling", data, tuple(names))
    types = get_type_hints(Scaling)
    for name, field in names.items():
        if name not in data:
            raise GenotypeError(f"scaling has no field {name}; it has {', '.join(names)}")
        wanted = types[field]
        # a JSON true is an int in Python, and a float may be written as an int
        if not isinstance(data[name], (int, float) if wanted is float else wanted) or isinstance(data[name], bool):
            raise GenotypeError(f"scaling has {name} {data[name]!r}; it must be of type {wanted.__name__}")
    return Scaling(**{field: data[name] for name, field in names.items()})


def _from_source(source: bytes, path: Path) -> dict[str, Any]:
    """Return block specs from the one list of rows in Python source, with the stem that both code bases use."""
    try:
        with warnings.catch_warnings(action="ignore"):  # warnings about the source's style
            lists = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.List)]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{path} is not Python; name a file with a list of block specs") from error
    found = [rows for rows in map(_literal, lists) if rows and all(isinstance(row, (tuple, list)) for row in rows)]
    found = [rows for rows in found if all(len(row) == 4 and isinstance(row[1], str) for row in rows)]
    if END_OF_ARCHITECTURE.encode() in source:
        raise UserError(
            f"{path} is an export of the format python or mmdet, which cannot be read back; export the architecture "
            "as json or block-specs"
        )
    if len(found) != 1:
        raise UserError(
            f"{path} has {len(found)} lists of block specs, with rows (level, block_fn, (parent, parent), is_output); "
            "leave exactly one"
        )
    rows = json.loads(json.dumps(found[0], default=str))
    kind, levels = ("mbconv", (1, 2)) if any(row[1] == "mbconv" for row in rows) else ("bottleneck", (2, 2))
    return {"schema": BLOCK_SPECS_SCHEMA, "stem": [[level, kind] for level in levels], "block_specs": rows}


def _literal(node: ast.List) -> list[Any]:
    """Return the value of a list of constants, and an empty list for any other list."""
    try:
        value: list[Any] = ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError):
        return []
    return value


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
            _check_fields(f"block {node}", row, ("level", "kind", "parents", "is_output"))
            parents = row.get("parents")
            if isinstance(parents, list) and all(type(parent) is int for parent in parents):
                row = {**row, "parents": sorted(parents)}
        rows.append(row)
    return {**data, "blocks": rows}


def _check_fields(name: str, data: dict[str, Any], known: tuple[str, ...]) -> None:
    """Refuse unknown fields: a misspelt is_output would otherwise silently lose an output."""
    for field in data:
        if field not in known:
            raise GenotypeError(f"{name} has the unknown field {field!r}{nearest(field, known)}")
