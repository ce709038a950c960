"""The layers: who may import whom, and what a light import may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared_fixtures import REPOSITORY

MAY_IMPORT = {
    "space": {"space"},
    "results": {"results", "space"},
    "controller": {"controller", "results", "space"},
    "proxy_task": {"proxy_task", "results", "space"},
    "search": {"search", "controller", "proxy_task", "results", "space"},
}
"""Folders by folder; every module may import its own."""

HEAVY_ONLY_IN = {
    "torch": ("space/network/", "proxy_task/"),
    "ray": ("search/ray_",),
    "hotcoco": ("proxy_task/evaluation/coco_metrics.py",),
    "click": ("search/cli", "search/cli/target.py"),
    "rich": ("search/monitoring/display.py", "proxy_task/data/progress.py"),
    "pandas": ("results/leaderboard.py", "search/run/run.py"),
    "scipy": (
        "results/stats/intraclass.py",
        "results/stats/noise.py",
        "results/stats/rank_correlation.py",
        "results/stats/intervals.py",
        "search/controller_bench/comparison.py",
        "proxy_task/cost_model.py",
    ),
    "resvg_py": ("results/pictures/picture_file.py",),
    "onnx": ("proxy_task/weights/backbone_files.py",),
    "onnxscript": ("proxy_task/weights/backbone_files.py",),
    "tensorboardX": ("search/monitoring/tensorboard_log.py",),
    "optuna": ("controller/optuna_sampler.py", "search/outputs/optuna_study.py"),
}
"""Where a third-party package may be imported."""


def imports_of(source: str) -> Iterator[str]:
    """Every module a source imports, wherever in it; plain names and `from` both."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports make a second copy of each class"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules() -> list[Path]:
    return [path for folder in MAY_IMPORT for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def layer_violations(folder: str, source: str) -> list[str]:
    """Imports of a module in a folder that its layer does not allow."""
    found = []
    for name in imports_of(source):
        parts = name.split(".")
        if parts[0] in MAY_IMPORT:
            found.append(f"{name} without spinenas")
        elif parts[0] == "spinenas" and parts[1] not in MAY_IMPORT[folder]:
            found.append(name)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_module_imports_only_from_layers_below_it(path: Path) -> None:
    folder = path.relative_to(REPOSITORY).parts[0]
    assert layer_violations(folder, path.read_text()) == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_heavy_packages_are_imported_only_where_they_belong(path: Path) -> None:
    name = str(path.relative_to(REPOSITORY))
    for package in {module.split(".")[0] for module in imports_of(path.read_text())} & set(HEAVY_ONLY_IN):
        assert name.startswith(HEAVY_ONLY_IN[package]), f"{name} imports {package}"


def test_the_check_of_layers_sees_an_import_from_above() -> None:
    source = "def f():\n    from spinenas.search.config.config import SearchConfig\nimport space.genotype\n"
    assert sorted(layer_violations("results", source)) == [
        "space.genotype without spinenas",
        "spinenas.search.config.config.SearchConfig",
    ]


@pytest.mark.parametrize(
    "module", ["spinenas.space", "spinenas.results.leaderboard", "spinenas.controller", "spinenas.search.run.lifecycle"]
)
def test_a_light_module_loads_neither_torch_nor_ray_nor_pandas(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{'torch', 'ray', 'pandas'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == ""
