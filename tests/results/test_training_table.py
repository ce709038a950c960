"""Training tables: round trip, equal bytes, and one sentence for anything that is not a table."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path

import pytest
from shared_fixtures import REPOSITORY

from spinenas.results.record import Evaluation, Status, TrialRecord
from spinenas.results.stats.intraclass_correlation import intraclass_correlation
from spinenas.results.training_table import Training, TrainingTable, read_table, training_of, write_table
from spinenas.search.run.driver import trial_seed
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.published import SPINENET_49

ABOUT = {"space": "spinenet49", "data": {}, "task": {"epochs": 2}}
CURVE = ({"epoch": 1, "AP": 0.01, "loss": 2.5}, {"epoch": 2, "AP": 0.123456789, "loss": 1.25})


def record(number: int = 0) -> TrialRecord:
    return TrialRecord(
        number=number,
        genotype=SPINENET_49,
        network_key=network_key(SPINENET_49),
        status=Status.COMPLETE,
        replicate=2,
        seed=77,
        evaluation=Evaluation(0.123456789, params=10, madds=20, train_seconds=1.5, eval_seconds=0.5),
    )


def test_a_table_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.gz"
    training = training_of(record(), CURVE, "random")
    assert training == Training(
        SPINENET_49.text, network_key(SPINENET_49), 2, 77, "random", 0.123456789, (0.01, 0.123456789), (2.5, 1.25),
        10, 20, 1.5, 0.5,
    )  # fmt: skip
    write_table(path, ABOUT, [training, training])
    found = read_table(path)
    assert found.about == ABOUT
    assert len(found.trainings) == 2
    assert found.trainings[0].ap == training.ap
    assert found.trainings[0].ap_by_epoch == pytest.approx(training.ap_by_epoch, rel=1e-5)
    assert found.trainings[0].genotype == training.genotype
    first = path.read_bytes()
    write_table(path, ABOUT, [training, training])
    assert path.read_bytes() == first


def test_a_trial_without_a_complete_curve_is_refused() -> None:
    for curve in ((), ({"epoch": 1, "loss": 1.0},)):
        with pytest.raises(UserError, match="trial 3 has no genotype, or no AP for some epoch"):
            training_of(record(3), curve, "random")


@pytest.mark.parametrize(
    "data",
    [b"", b"not gzip", gzip.compress(b'{"schema": "else"}\n', mtime=0), gzip.compress(b"\n\n", mtime=0)],
    ids=["empty", "no gzip", "another schema", "empty lines"],
)
def test_a_file_that_is_not_a_table_is_refused_in_one_sentence(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "table.csv.gz"
    path.write_bytes(data)
    with pytest.raises(UserError, match="is not a training table"):
        read_table(path)


def test_a_table_may_be_empty(tmp_path: Path) -> None:
    write_table(tmp_path / "t", ABOUT, [])
    assert read_table(tmp_path / "t") == TrainingTable(ABOUT, ())


def test_damage_anywhere_in_a_table_is_reported_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.gz"
    write_table(path, ABOUT, [training_of(record(), CURVE, "random")])
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with contextlib.suppress(UserError):  # some bytes of the gzip header do not matter
            assert read_table(path).about == ABOUT
    text = gzip.decompress(whole).decode()
    for damaged in (text.replace('"space"', '"place"'), text[: text.index("0.01 ")]):
        path.write_bytes(gzip.compress(damaged.encode()))
        with pytest.raises(UserError, match="is not a training table"):
            read_table(path)


def test_the_table_of_digits_agrees_with_its_card() -> None:
    figures = {"random": (60, 0.976, 0.963, 0.985), "mutants": (36, 0.516, 0.322, 0.691)}
    table = read_table(REPOSITORY / "benchmarks" / "tables" / "digits.csv.gz")
    assert table.about["task"]["eval"]["bn_images"] == 512
    by_network: dict[str, list[Training]] = {}
    for training in table.trainings:
        by_network.setdefault(training.network_key, []).append(training)
        assert training.ap == pytest.approx(training.ap_by_epoch[-1], rel=1e-5)
        assert training.seed == trial_seed(0, training.network_key, training.replicate)
    num_networks = sum(count for count, *_ in figures.values())
    assert (len(table.trainings), len(by_network)) == (3 * num_networks, num_networks)
    assert table.trainings[0].genotype == SPINENET_49.text
    for key, trainings in by_network.items():
        assert network_key(Genotype.from_text(trainings[0].genotype)) == key
        assert sorted(training.replicate for training in trainings) == [0, 1, 2]
    for origin, (count, *wanted) in figures.items():
        aps = [[training.ap for training in each] for each in by_network.values() if each[0].origin == origin]
        found = intraclass_correlation(aps)
        assert len(aps) == count
        assert [round(value, 3) for value in (found.value, found.lower, found.upper)] == wanted
    assert "/" not in str(table.about["task"]["data"]), "a table must not contain local paths"


def test_the_table_of_longer_trainings_has_the_same_networks_and_seeds() -> None:
    tables = REPOSITORY / "benchmarks" / "tables"
    long, short = (read_table(tables / f"{name}.csv.gz") for name in ("digits-20-epochs", "digits"))
    assert long.about["task"]["train"] == short.about["task"]["train"] | {"epochs": 20}
    assert long.about["data"] == short.about["data"]
    assert len(long.trainings) == 30
    known = {(training.network_key, training.seed) for training in short.trainings}
    assert {(training.network_key, training.seed) for training in long.trainings} <= known
    assert {len(training.ap_by_epoch) for training in long.trainings} == {20}
