"""Reads architectures from Python source: our own exports, and block tables of other programs. Nothing is executed.

A block table is a list or tuple of rows (level, block, (parent, parent), is_output), or of calls with these arguments.
The block is a string, or the name of a class, such as Bottleneck. Rows at the beginning whose parents are all None are
the stem.
"""

from __future__ import annotations

import ast
import warnings
from pathlib import Path
from typing import Any

from spinenas.results.export.description import ExportDescription, parse_description
from spinenas.results.export.python_source import END_OF_ARCHITECTURE, METADATA, constants
from spinenas.space.errors import UserError
from spinenas.space.genotype import BlockKind

WHAT_IS_A_TABLE = "a list of rows (level, block, (parent, parent), is_output), such as (2, 'bottleneck', (0, 1), False)"

_KINDS = {
    "basicblock": "residual",
    "residualblock": "residual",
    "bottleneckblock": "bottleneck",
    "mbconvblock": "mbconv",
    "invertedresidual": "mbconv",
    "invertedbottleneck": "mbconv",
    "invertedbottleneckblock": "mbconv",
}
"""Kinds of block by the names of classes in other programs, in lower case and without underscores."""


def parse_source(source: bytes, path: Path) -> ast.Module:
    """Parse a file. Raises UserError."""
    try:
        with warnings.catch_warnings(action="ignore"):  # warnings about the source's style
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{path} is not Python; name a file with a list of block specs") from error


def exported_description(tree: ast.Module, source: bytes, path: Path) -> ExportDescription | None:
    """Return the description in a file of the format python or mmdet; None for another file. Raises UserError."""
    found = _constants_of(tree)
    if METADATA not in found:
        if END_OF_ARCHITECTURE.encode() in source:
            raise UserError(f"{path} was exported without {METADATA}, by an earlier version; export it again")
        return None
    try:
        description = parse_description(_literal(found[METADATA]))
    except UserError as error:
        raise type(error)(f"{path}: {error}") from error
    for name, value in constants(description).items():
        if name in found and _literal(found[name]) != (tuple(value) if isinstance(value, list) else value):
            raise UserError(
                f"{path}: its {name} was changed after the export and is not that of its {METADATA}; export the "
                "architecture again"
            )
    return description


def _constants_of(tree: ast.Module) -> dict[str, ast.expr]:
    """Return the expressions that a module assigns to names."""
    found = {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                found[name] = value
    return found


def _literal(node: ast.expr) -> Any:
    """Return the value of a literal; None for anything else."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError):
        return None


def block_table(tree: ast.Module, path: Path) -> dict[str, Any]:
    """Return the stem and the rows of the one block table in a file, as block specs. Raises UserError."""
    lists = [node for node in ast.walk(tree) if isinstance(node, ast.List | ast.Tuple) and node.elts]
    tables = [node for node in lists if not any(_problem(row) for row in node.elts)]
    # Other lists of four may have a name in the second place too, such as coordinates.
    tables = [node for node in tables if _has_known_kinds(node)] or tables
    if not tables:
        raise UserError(f"{path} has no block table, which is {WHAT_IS_A_TABLE}{_near_miss(lists)}")
    if len(tables) > 1:
        places = ", ".join(f"line {node.lineno}" for node in tables)
        raise UserError(f"{path} has {len(tables)} block tables, in {places}; leave exactly one in a copy of the file")
    return as_block_specs([_values(row) for row in tables[0].elts])


def _has_known_kinds(table: ast.List | ast.Tuple) -> bool:
    return all(_kind(_values(row)[1]) in set(BlockKind) for row in table.elts)


def _near_miss(lists: list[ast.List | ast.Tuple]) -> str:
    """Return the end of a sentence: why the list that is most like a table is none, or how many were looked at."""
    likely = max(lists, key=lambda node: sum(map(_resembles_row, node.elts)), default=None)
    if likely is None or not any(map(_resembles_row, likely.elts)):
        return f"; none of its {len(lists)} lists and tuples has such a row, so name the file that has the table"
    row, problem = next((row, problem) for row in likely.elts if (problem := _problem(row)))
    return f"; the list in line {likely.lineno} is none because of line {row.lineno}: {problem}"


def _resembles_row(row: ast.expr) -> bool:
    """Whether a row has four entries of which the third is a pair, whatever the values."""
    entries = _entries(row)
    return entries is not None and len(entries) == 4 and isinstance(entries[2], ast.Tuple | ast.List)


def _problem(row: ast.expr) -> str | None:
    """Return why an expression is no row of a table; None if it is one."""
    entries = _entries(row)
    if entries is None:
        return "it is no tuple or list"
    if len(entries) != 4:
        return f"it has {len(entries)} entries instead of 4"
    try:
        _, kind, parents, _ = _values(row)
    except ValueError:
        return "it has an entry that is computed, and nothing in the file is executed"
    if not isinstance(kind, str):
        return f"its block {kind!r} is neither a string nor the name of a class"
    if not isinstance(parents, list):
        return f"its parents {parents!r} are no tuple or list"
    return None


def _entries(row: ast.expr) -> list[ast.expr] | None:
    """Return the entries of a row: a tuple, a list, or a call such as BlockSpec(2, Bottleneck, (0, 1), False)."""
    match row:
        case ast.Tuple(elts=entries) | ast.List(elts=entries):
            return entries
        case ast.Call(func=ast.Name() | ast.Attribute(), args=entries, keywords=named):
            return [*entries, *(keyword.value for keyword in named)]
    return None


def _values(row: ast.expr) -> list[Any]:
    """Return the values of a row's entries. Raises ValueError for an entry that is computed."""
    return [_plain(entry) for entry in _entries(row) or []]


def _plain(node: ast.expr) -> Any:
    """Return constants, tuples and lists as JSON has them, and names as strings. Raises ValueError."""
    match node:
        case ast.Constant(value=value):
            return value if isinstance(value, str | int | float | None) else repr(value)
        case ast.Tuple(elts=entries) | ast.List(elts=entries):
            return [_plain(entry) for entry in entries]
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as value)):
            return -value
    raise ValueError


def as_block_specs(rows: list[list[Any]]) -> dict[str, Any]:
    """Return block specs with the stem of both code bases, unless the table begins with stem rows of its own."""
    rows = [[level, _kind(kind), parents, is_output] for level, kind, parents, is_output in rows]
    num_stem = 0
    while num_stem < len(rows) and _has_no_parents(rows[num_stem]):
        num_stem += 1
    stem = [[level, kind] for level, kind, _, _ in rows[:num_stem]]
    if not stem:
        kind, levels = ("mbconv", (1, 2)) if any(row[1] == "mbconv" for row in rows) else ("bottleneck", (2, 2))
        stem = [[level, kind] for level in levels]
    return {"stem": stem, "block_specs": rows[num_stem:]}


def _has_no_parents(row: list[Any]) -> bool:
    parents = row[2]
    return isinstance(parents, list) and all(parent is None for parent in parents)


def _kind(name: Any) -> Any:
    """Return the kind of a block by its name in another program; an unknown name as it is."""
    if not isinstance(name, str):
        return name
    plain = name.lower().replace("_", "")
    return _KINDS.get(plain, plain if plain in _KINDS.values() else name)
