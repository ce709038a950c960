"""The architecture: allowed imports between folders, no circles, and where third-party packages are used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from import_graph import between_folders, circles, imported_modules, imports_of, modules
from shared_fixtures import REPOSITORY

MAY_IMPORT = {
    "space": {"space"},
    "results": {"results", "space"},
    "controller": {"controller", "results", "space"},
    "proxy_task": {"proxy_task", "results", "space"},
    "search": {"search", "controller", "proxy_task", "results", "space"},
}
"""Top-level folders by top-level folder."""

SEARCH_LAYERS = (
    {"cli"},
    {"controller_bench"},
    {"studies", "planning", "outputs"},
    {"run"},
    {"monitoring"},
    {"executors"},
    {"config"},
)
"""The sub-folders of search/ from the top down: each imports only from its own and lower layers."""

HEAVY_ONLY_IN = {
    "torch": ("space/network/", "space/tensorflow/", "proxy_task/", "controller/policy/"),
    "ray": ("search/executors/ray_", "search/planning/ray_", "search/ray_searcher.py"),
    "hotcoco": ("proxy_task/evaluation/coco_metrics.py",),
    "pycocotools": ("proxy_task/evaluation/pycocotools_metrics.py", "proxy_task/data/annotation_files/masks.py"),
    "click": ("search/cli/",),
    "rich": ("search/monitoring/display.py", "proxy_task/data/progress.py"),
    "pandas": ("results/leaderboard.py", "search/run/run.py"),
    "scipy": ("results/stats/", "search/controller_bench/outcome_tables.py", "proxy_task/cost_model.py"),
    "jinja2": ("results/report/",),
    "resvg_py": ("results/pictures/picture_file.py",),
    "onnx": ("proxy_task/weights/backbone_files.py",),
    "onnxscript": ("proxy_task/weights/backbone_files.py",),
    "tensorboardX": ("search/monitoring/tensorboard_log.py",),
    "optuna": ("controller/optuna_sampler.py", "search/outputs/optuna_study.py"),
}
"""Where a third-party package may be imported."""


def paths() -> list[Path]:
    return list(modules(REPOSITORY).values())


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    return imported_modules({name: path.read_text(encoding="utf-8") for name, path in modules(REPOSITORY).items()})


def layer_violations(folder: str, source: str) -> list[str]:
    """Return the imports of a module that the layer of its top-level folder does not allow."""
    found = []
    for name in imports_of(source):
        parts = name.split(".")
        if parts[0] in MAY_IMPORT:
            found.append(f"{name} without spinenas")
        elif parts[0] == "spinenas" and parts[1] not in MAY_IMPORT[folder]:
            found.append(name)
    return found


@pytest.mark.parametrize("path", paths(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_module_imports_only_from_layers_below_it(path: Path) -> None:
    folder = path.relative_to(REPOSITORY).parts[0]
    assert layer_violations(folder, path.read_text()) == []


def test_the_sub_folders_of_search_import_only_downwards(arrows: dict[str, set[str]]) -> None:
    layer = {folder: number for number, folders in enumerate(SEARCH_LAYERS) for folder in folders}
    upward = []
    for name, targets in arrows.items():
        for target in targets:
            if name.startswith("search.") and target.startswith("search."):
                above, below = name.split(".")[1], target.split(".")[1]
                if above in layer and below in layer and above != below and layer[above] >= layer[below]:
                    upward.append(f"{name} imports {target}")
    assert upward == []
    folders = {path.parent.name for path in (REPOSITORY / "search").glob("*/__init__.py")}
    assert folders == set(layer), "every sub-folder of search/ has a layer"


def test_no_modules_import_each_other_in_a_circle(arrows: dict[str, set[str]]) -> None:
    assert circles(arrows) == []


def test_no_folders_import_each_other_in_a_circle(arrows: dict[str, set[str]]) -> None:
    assert circles(between_folders(arrows, modules(REPOSITORY))) == []


def test_a_circle_is_seen_even_where_a_function_or_a_type_check_hides_it() -> None:
    sources = {
        "space.a": "def f():\n    from spinenas.space.b import g\n",
        "space.b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from spinenas.space.c import h\n",
        "space.c": "import spinenas.space.a\n",
        "space.d": "from spinenas.space import a\n",
    }
    assert circles(imported_modules(sources)) == [["space.a", "space.b", "space.c"]]


@pytest.mark.parametrize("path", paths(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_heavy_packages_are_imported_only_where_they_belong(path: Path) -> None:
    name = str(path.relative_to(REPOSITORY))
    for package in {module.split(".")[0] for module in imports_of(path.read_text())} & set(HEAVY_ONLY_IN):
        assert name.startswith(HEAVY_ONLY_IN[package]), f"{name} imports {package}"


def test_the_check_of_layers_sees_an_import_from_above() -> None:
    source = "def f():\n    from spinenas.search.config import SearchConfig\nimport space.genotype\n"
    assert sorted(layer_violations("results", source)) == [
        "space.genotype without spinenas",
        "spinenas.search.config.SearchConfig",
    ]


@pytest.mark.parametrize(
    "module",
    [
        "spinenas.space",
        "spinenas.results",
        "spinenas.results.leaderboard",
        "spinenas.controller",
        "spinenas.search",
        "spinenas.search.run.lifecycle",
        "spinenas.search.cli",
    ],
)
def test_a_light_module_loads_neither_torch_nor_ray_nor_pandas(module: str) -> None:
    assert loaded_by(module, "torch", "ray", "pandas") == ""


@pytest.mark.parametrize("module", ["spinenas.space", "spinenas.results", "spinenas.results.storage.journal"])
def test_architectures_and_journals_are_read_without_numpy(module: str) -> None:
    assert loaded_by(module, "numpy") == ""


def loaded_by(module: str, *packages: str) -> str:
    """Return which of these packages a module loads."""
    code = f"import sys, {module}; print(*sorted({set(packages)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return done.stdout.strip()
