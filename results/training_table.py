"""Tables of real trainings, which studies use instead of training: one line per training, with its curve.

A table is one gzipped text file. Its first line is a JSON object that describes task, data and machine. The second line
names the columns, and the rest is CSV.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from spinenas.results.record import TrialRecord
from spinenas.results.storage.atomic_write import write_bytes_atomically
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype

SCHEMA = "spinenas-training-table/1"


@dataclass(frozen=True, slots=True)
class Training:
    """One training of a table.

    Attributes:
        genotype: genotype as text.
        network_key: identity of the built network.
        replicate: seed index of the network.
        seed: seed of all randomness.
        origin: how the genotype was chosen.
        ap: COCO AP on the reward images after the last epoch.
        ap_by_epoch: AP after each epoch.
        loss_by_epoch: mean training loss of each epoch.
        params, madds: parameters and multiply-adds of the detector for one image.
        train_seconds, eval_seconds: durations on the table's machine.
    """

    genotype: str
    network_key: str
    replicate: int
    seed: int
    origin: str
    ap: float
    ap_by_epoch: tuple[float, ...]
    loss_by_epoch: tuple[float, ...]
    params: int
    madds: int
    train_seconds: float
    eval_seconds: float


COLUMNS = get_type_hints(Training)
"""Types of the fields by name, in order."""


@dataclass(frozen=True, slots=True)
class TrainingTable:
    """A table in memory.

    Attributes:
        about: task configuration, data, versions and machine.
        trainings: trainings in the order of the file.
    """

    about: dict[str, Any]
    trainings: tuple[Training, ...]


def training_of(record: TrialRecord, curve: Sequence[dict[str, float]], origin: str) -> Training:
    """Make a table line from a complete trial and its curve, which needs an AP per epoch. Raises UserError."""
    evaluation = record.evaluation
    assert evaluation is not None, "the trial has no result"
    if not isinstance(record.genotype, Genotype) or not curve or any("AP" not in entry for entry in curve):
        raise UserError(
            f"trial {record.number} has no genotype, or no AP for some epoch; make tables from runs of genotypes with "
            "task.eval.every_epochs=1"
        )
    return Training(
        genotype=record.genotype.text,
        network_key=record.network_key,
        replicate=record.replicate,
        seed=record.seed,
        origin=origin,
        ap=evaluation.objective,
        ap_by_epoch=tuple(entry["AP"] for entry in curve),
        loss_by_epoch=tuple(entry["loss"] for entry in curve),
        params=evaluation.params or 0,
        madds=evaluation.madds or 0,
        train_seconds=evaluation.train_seconds or 0.0,
        eval_seconds=evaluation.eval_seconds or 0.0,
    )


def write_table(path: Path, about: dict[str, Any], trainings: Iterable[Training]) -> None:
    """Write a table atomically; the same trainings give the same bytes."""
    text = io.StringIO()
    text.write(json.dumps({"schema": SCHEMA, **about}, allow_nan=False) + "\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for training in trainings:
        writer.writerow([_cell(getattr(training, name)) for name in COLUMNS])
    write_bytes_atomically(path, gzip.compress(text.getvalue().encode(), mtime=0))


def _cell(value: Any) -> Any:
    """Format curves with six digits, and keep other values in full."""
    return " ".join(f"{part:.6g}" for part in value) if isinstance(value, tuple) else value


def _value(cell: str, kind: Any) -> Any:
    """Parse a cell of a column with values of this type."""
    return kind(cell) if kind in (str, int, float) else tuple(map(float, cell.split()))


def read_table(path: Path) -> TrainingTable:
    """Read a table. Raises UserError."""
    try:
        text = gzip.decompress(path.read_bytes()).decode()
        first, _, rest = text.partition("\n")
        about = json.loads(first)
        if about.pop("schema", None) != SCHEMA:
            raise ValueError(f"its first line does not have the schema {SCHEMA}")
        about["space"], about["data"]  # required by every use of a table
        rows = csv.DictReader(io.StringIO(rest))
        trainings = (Training(**{name: _value(row[name], kind) for name, kind in COLUMNS.items()}) for row in rows)
        return TrainingTable(about, tuple(trainings))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a training table ({error}); name a file like those in benchmarks/tables"
        ) from error
