"""Which modules import which: arrows between modules and folders, and circles among them.

    python tests/import_graph.py [CHECKOUT]

prints files per folder, arrows between folders, circles, the longest module and the lines of a checkout.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

FOLDERS = ("space", "results", "controller", "proxy_task", "search")


def imports_of(source: str) -> Iterator[str]:
    """Every name that a source imports: at the top, inside functions and under TYPE_CHECKING alike."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports make a second copy of each class"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(checkout: Path) -> dict[str, Path]:
    """Files by their dotted name below spinenas; an __init__ has the name of its folder."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((checkout / folder).rglob("*.py")):
            name = ".".join(path.relative_to(checkout).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imported_modules(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """For each module, the others of ours that it imports; `from folder import name` counts as its __init__."""
    arrows: dict[str, set[str]] = {name: set() for name in sources}
    for name, source in sources.items():
        for imported in imports_of(source):
            if imported.startswith("spinenas."):
                target = imported.removeprefix("spinenas.")
                while target and target not in sources:
                    target = target.rpartition(".")[0]
                if target and target != name:
                    arrows[name].add(target)
    return arrows


def between_folders(arrows: Mapping[str, Iterable[str]], files: Mapping[str, Path]) -> dict[str, set[str]]:
    """The arrows between sub-folders. A module directly below a top-level folder is a room of its own."""

    def room(name: str) -> str:
        if files[name].name == "__init__.py":
            return name
        folder = name.rpartition(".")[0]
        return folder if "." in folder else name

    found: dict[str, set[str]] = {}
    for name, targets in arrows.items():
        found.setdefault(room(name), set()).update(room(target) for target in targets if room(target) != room(name))
    return found


def circles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of names that reach each other (Tarjan's strongly connected components of more than one)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(arrows.get(name, ())):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            members = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(members) > 1:
                found.append(sorted(members))

    for name in sorted(arrows):
        if name not in index:
            visit(name)
    return found


def kinds_of_lines(source: str) -> Counter[str]:
    """How many lines are imports, docstrings (of modules, classes, functions and attributes) and other code."""
    lines = enumerate(map(str.strip, source.splitlines()), start=1)
    kinds = {number: "code" for number, line in lines if line and not line.startswith("#")}
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import() | ast.ImportFrom():
                kind = "import"
            case ast.Expr(ast.Constant(str())):
                kind = "docstring"
            case _:
                continue
        kinds |= dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), kind)
    return Counter(kinds.values())


def main(checkout: Path) -> None:
    files = modules(checkout)
    sources = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    arrows = imported_modules(sources)
    folders = between_folders(arrows, files)
    per_folder = Counter(str(path.parent.relative_to(checkout)) for path in files.values())
    lengths = {name: len(source.splitlines()) for name, source in sources.items()}
    longest = max(lengths, key=lambda name: lengths[name])
    for folder, count in sorted(per_folder.items()):
        print(f"{folder}/: {count} files")
    print(f"most files in a folder: {max(per_folder.values())}")
    print(f"arrows between folders: {sum(map(len, folders.values()))}")
    print(f"circles of modules: {len(circles(arrows))}, of folders: {len(circles(folders))}")
    print(f"longest module: {longest}, {lengths[longest]} lines")
    kinds = sum(map(kinds_of_lines, sources.values()), Counter())
    print(f"lines of product code: {sum(lengths.values())}, of them {kinds['import']} of imports")
    print(f"the same without imports, docstrings, comments and empty lines: {kinds['code']}")
    print(f"lines of README.md: {len((checkout / 'README.md').read_text(encoding='utf-8').splitlines())}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent)
