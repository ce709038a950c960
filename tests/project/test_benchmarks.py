"""A small form of every benchmark runs and prints its figures. No test checks how fast it is."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import torch
from benchmark_files import BENCHMARKS, loaded_benchmark
from shared_fixtures import REPOSITORY
from small_task import small_dataset

from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.training import compilation
from spinenas.results.training_table import read_table, write_table
from spinenas.search.config.loading import load_config
from spinenas.search.studies.study import run_study
from spinenas.space import Genotype
from spinenas.space.network import build_backbone
from spinenas.space.published import SPINENET_49
from spinenas.space.scaling import SCALINGS

DIGITS = REPOSITORY / "benchmarks" / "tables" / "digits.csv.gz"
NO_SCRIPTS = {"altered_training", "benchmark_task", "inherited_weights", "plain_training"}
"""What several benchmarks import."""

OWN_TEST = {"accelerator"}

SMALL_FORMS = {
    "checkpoint_cost": ("--repeats 1 --cases 1", r"\| quickstart \| \d+\.\d \|"),
    "compile_reuse": ("--genotypes 1 --space tiny", r"\d+ calls of \d+ programs"),
    "controller_scale": ("random --known 40 --at-once 5", r"random +40 .* 5 +5 "),
    "controller_speed": ("random --known 40", r"random +40( +\d+\.\d\d){4}"),
    "cost_prediction": ("quickstart --small --genotypes 1 --trials 0", r"64 px more +trial_seconds .*%"),
    "data_scale": (
        "--data {data} --images 100 --boxes 500 --workers 1 --pixels 96 --runs 1",
        r"\| two threads \| \d+ \|",
    ),
    "equivalence": ("--small --genotypes 1 --seeds 1 --workers 1", r"mean AP: ours 0\.\d{4}, plain 0\.\d{4}"),
    "evaluation_speed": ("--images 20 --runs 1", r"\| the figures \| \d\.\d+ s \|"),
    "executor_overhead": ("--trials 9 --seconds 0.01 --executors serial", r"serial +\d\.\d+ s"),
    "held_out_copies": ("--small", r"\| of their picture \| 15 of 80 \| 0 reward images"),
    "jitter_loss": ("--data {data} --size 32 --images 3", r"\| 2\.0 \| \d+\.\d dB \|"),
    "journal_scale": ("--trials 20 --events 16 --openings 1", r"durable events: \d+ a second"),
    "make_table": ("random={run} --out table.csv.gz", r"1 trainings of 1 networks"),
    "number_formats": (
        "--small --genotypes 1 --rounds 1 --out formats.json",
        r"a step takes \d+\.\d\d times as long in bfloat16",
    ),
    "predictor_fit": ("{few_digits}", r"12 random +other random( +-?\d+\.\d\d){3}"),
    "prior": ("{digits} --orders 1", r"scrambled( +-?\d\.\d\d( \(-?\d+\.\d\d\))?){5}"),
    "proxy_speed": ("--small --steps 1 --blocks 1 --evaluations 1", r"\| trials per hour \| \d+\.\d \|"),
    "recorded_curves": ("{digits} --orders 1 --budget 8", r"\| \d+ random \| freeze-thaw \|( (\d+|never) \|){3}"),
    "report_scale": ("--trials 30 --commands 20 --repeats 1", r"show best, 20 trials: \d+\.\d\d s"),
    "retrain_row": ("{table} 0", r"row 0: AP 0\.\d{4} in the table, 0\.\d{4} now, the same"),
    "search_scale": ("--trials 8 --seconds 0.1 --workers 1 --tune-trials 0", r"ray +8 +\d+\.\d"),
    "seed_spread": ("--small --genotypes 3 --seeds 2 --workers 1", r"without the best: intraclass correlation"),
    "space_speed": ("--repetitions 20", r"target 500: (met|MISSED)"),
    "step_parity": ("--small --genotypes 0", r"\| cpu \| float64 \| NHWC \| \d"),
    "training_noise": (
        "{small_digits} --out noise.jsonl --parents 2 --mutants 2 --seeds 2",
        r"order of images: common; 2 networks, 2 seeds\n.*averaged weights 0\.\d{4}",
    ),
    "tune_controllers": (
        "--controllers local --landscapes 1 --budget 30 --workers 4 --processes 1 --out tuning.jsonl",
        r"local +num_parents 16 +-?\d+\.\d\d",
    ),
    "weight_inheritance": (
        "{small_digits} --out inheritance --parents 1 --mutants 3",
        r"learning rate times 0\.33\n(.*\n)+\| inherited, 1 epochs \| 0\.\d{4} \|",
    ),
    "worker_memory": ("--trials 3", r"from then on [+-]\d+\.\d MiB per 100 trials"),
}
"""For each benchmark, arguments that make it end in seconds, and a pattern of a line that it prints with them."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a few generated images."""
    return small_dataset(tmp_path_factory, num_train=6, num_val=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one training."""
    task = {
        "image_size_pixels": 96,
        "data": {"built_in_train_images": 40, "built_in_val_images": 4},
        "train": {"epochs": 1},
        "eval": {"every_epochs": 1},
    }
    config = load_config({"preset": "quickstart", "task": task, "executor": {"kind": "serial"}}, {})
    out = tmp_path_factory.mktemp("study") / "run"
    run_study(config, [SPINENET_49], 1, out=out, task=ProxyTask(config.task))
    return out


@pytest.fixture(scope="module")
def table(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table that `make_table` makes of that study."""
    path = tmp_path_factory.mktemp("table") / "table.csv.gz"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["make_table", f"random={run}", "--out", str(path)])
        loaded_benchmark("make_table").main()
    return path


@pytest.fixture(scope="module")
def digits() -> Path:
    return DIGITS


@pytest.fixture(scope="module")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 14 networks of the table of trainings on digits."""
    path = tmp_path_factory.mktemp("digits") / "few.csv.gz"
    digits = read_table(DIGITS)
    write_table(path, digits.about, digits.trainings[: 3 * 14])
    return path


@pytest.fixture(scope="module")
def small_digits(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some networks of the table of trainings on digits, with the task of the small table."""
    path = tmp_path_factory.mktemp("digits") / "small.csv.gz"
    trainings = read_table(DIGITS).trainings
    keys = {
        origin: list(dict.fromkeys(training.network_key for training in trainings if training.origin == origin))
        for origin in ("random", "mutants")
    }
    chosen = {*keys["random"][:4], *keys["mutants"][:3]}
    write_table(path, read_table(table).about, [training for training in trainings if training.network_key in chosen])
    return path


@pytest.fixture
def _as_a_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in an empty folder, and undo what a script changes in its process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(compilation, "BACKEND", compilation.BACKEND)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)


@pytest.mark.usefixtures("_as_a_script")
@pytest.mark.parametrize("name", SMALL_FORMS)
def test_the_small_form_of_a_benchmark_prints_its_figures(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, line = SMALL_FORMS[name]
    folders = {fixture: request.getfixturevalue(fixture) for fixture in re.findall(r"{(\w+)}", arguments)}
    monkeypatch.setattr(sys, "argv", [name, *arguments.format(**folders).split()])
    loaded_benchmark(name).main()
    assert re.search(line, capsys.readouterr().out)


def test_every_benchmark_has_a_small_form_and_a_line_in_the_readme() -> None:
    files = {path.stem for path in BENCHMARKS.glob("*.py")}
    assert files - NO_SCRIPTS - OWN_TEST == set(SMALL_FORMS)
    listed = re.findall(r"^\| `(\w+)\.py` \|", (BENCHMARKS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(files)


@pytest.mark.usefixtures("_as_a_script")
def test_a_training_without_alterations_is_that_of_a_trial(table: Path) -> None:
    task = loaded_benchmark("retrain_row").task_of(read_table(table), None)
    evaluation = task.evaluate(SPINENET_49, seed=3)
    _, figures = loaded_benchmark("altered_training").trained(task, SPINENET_49, seed=3, averages=True)
    assert figures["loss"] == [entry["loss"] for entry in evaluation.curve]
    assert list(figures["ap"].values()) == [evaluation.objective]


@pytest.mark.usefixtures("_as_a_script")
def test_a_child_inherits_what_its_parent_has_wherever_the_block_is() -> None:
    """Two outputs have changed places, and node 5 has another first parent."""
    parent, child = (
        Genotype.from_text(f"2b 2b / 3b0,1 4b1,2 3b1,2 {edited} 3r0,1! 6b1,8! {last}!")
        for edited, last in (
            ("5b2,4 4r2,3 4b4,5 4r4,6 5r4,6 3r7,9 3r7,9 4r4,11! 7b5,7!", "5r5,12"),
            ("5b1,4 4r2,3 4b4,5 4r4,6 5r4,6 3r7,9 3r7,9 7b5,7! 4r4,11!", "5r5,13"),
        )
    )
    weights, initial = (
        {f"backbone.{name}": tensor for name, tensor in build_backbone(genotype, SCALINGS["49S"]).state_dict().items()}
        for genotype in (parent, child)
    )
    benchmark = loaded_benchmark("inherited_weights")
    inherited = benchmark.inherited_tensors(child, parent, weights, initial)
    assert benchmark.inheritance(child, parent).distance == 1
    assert {name.removeprefix("backbone.")[:10] for name in initial.keys() - inherited.keys()} == {"node05.in0"}
    assert inherited["backbone.node12.rep0.conv1.weight"] is weights["backbone.node13.rep0.conv1.weight"]
