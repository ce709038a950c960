"""Priors of the predictor: where their lessons come from, and how a search begins with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmark_files import loaded_benchmark
from shared_fixtures import REPOSITORY

from spinenas.controller.contract import check
from spinenas.controller.predictor.prior import SHIPPED, read_lessons
from spinenas.controller.registry import make_controller
from spinenas.results.record import Evaluation
from spinenas.results.training_table import read_table, write_table
from spinenas.space import SearchSpace, UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key

SPACE = SearchSpace.spinenet49()
TABLES = REPOSITORY / "benchmarks" / "tables"
SMALL = {"num_random": 6, "num_candidates": 20}


def changed_table(path: Path, **changes: float | str) -> Path:
    """The digits table, with these values in every line."""
    table = read_table(TABLES / "digits.csv.gz")
    write_table(path, table.about, [replace(training, **changes) for training in table.trainings])
    return path


def proposals(count: int, **options) -> list[Genotype]:
    """The first proposals of a search in which each has a result before the next one."""
    controller = make_controller("predictor-guided", SPACE, **SMALL, **options)
    found = []
    for number in range(count):
        proposal = controller.ask()
        found.append(proposal.genotype)
        controller.tell(number, Evaluation(int(proposal.network_key[:4], 16) / 2**16))
    return found


@pytest.mark.parametrize("name", SHIPPED)
def test_a_prior_of_the_package_is_what_its_table_says(name: str) -> None:
    assert read_lessons(name, SPACE) == read_lessons(str(TABLES / f"{name}.csv.gz"), SPACE)
    shipped = REPOSITORY / "controller" / "predictor" / "priors" / f"{name}.csv"
    assert shipped.read_text() == loaded_benchmark("prior").as_csv(read_lessons(name, SPACE))


def test_lessons_are_the_mean_ap_of_each_random_network() -> None:
    lessons = read_lessons("digits", SPACE)
    trainings = read_table(TABLES / "digits.csv.gz").trainings
    first = [training.ap for training in trainings if training.network_key == trainings[0].network_key]
    assert lessons[0] == (trainings[0].genotype, pytest.approx(np.mean(first)))
    assert len({network_key(Genotype.from_text(text)) for text, _ in lessons}) == len(lessons) == 60


def test_a_table_with_few_random_networks_teaches_with_all_it_has(tmp_path: Path) -> None:
    path = changed_table(tmp_path / "searched.csv.gz", origin="search")
    assert len(read_lessons(str(path), SPACE)) == 96


def test_without_a_prior_there_are_no_lessons() -> None:
    assert read_lessons(None, SPACE) == []


@pytest.mark.parametrize(
    ("prior", "space", "words"),
    [
        ("digit", SPACE, "prior is 'digit', and no such file exists; give none, digits, or the path of a training"),
        ("digits", SearchSpace.tiny(), "the prior digits has 0 networks of the search space tiny, and needs 12"),
        ("notes.txt", SPACE, "notes.txt is not a training table"),
        ("folder", SPACE, "folder is no run, it has no config.json"),
        ("infinite.csv.gz", SPACE, "infinite.csv.gz has an AP that is not finite"),
    ],
)
def test_a_wrong_prior_is_explained_in_a_sentence(
    prior: str, space: SearchSpace, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no table")
    (tmp_path / "folder").mkdir()
    changed_table(tmp_path / "infinite.csv.gz", ap=float("inf"))
    with pytest.raises(UserError) as caught:
        read_lessons(prior, space)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_prior_changes_what_the_predictor_selects_and_not_the_random_networks_before() -> None:
    without, with_prior = proposals(12), proposals(12, prior="digits")
    assert with_prior[:6] == without[:6]
    assert with_prior[6:] != without[6:]
    assert with_prior == proposals(12, prior="digits")


def test_lessons_that_were_read_already_count_instead_of_the_file() -> None:
    lessons = [list(lesson) for lesson in read_lessons("digits", SPACE)]  # as a journal returns them
    assert proposals(9, prior="lost.csv.gz", lessons=lessons) == proposals(9, prior="digits")
    assert proposals(9, prior="digits", lessons=[]) == proposals(9)


def test_freeze_thaw_begins_with_networks_that_the_prior_expects_much_of() -> None:
    def expected(**options) -> float:
        controller = make_controller("freeze-thaw", SPACE, **SMALL, **options)
        judge = make_controller("predictor-guided", SPACE, prior="digits")
        first = [controller.ask().genotype for _ in range(6)]
        return float(judge._predictor.expected(first).mean())

    assert expected(prior="digits") > expected() + 0.5


@pytest.mark.parametrize("name", ["predictor-guided", "freeze-thaw"])
def test_a_controller_with_a_prior_follows_the_contract_which_replays_it(name: str) -> None:
    def make(space: SearchSpace, **given):
        prior = "digits" if space.identity == SPACE.identity else None  # the kit also tries a space of few networks
        return make_controller(name, space, prior=prior, **SMALL, **given)

    check(make, SPACE, num_asks=16, spawn=False)
