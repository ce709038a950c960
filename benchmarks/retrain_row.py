"""Train rows of a table again, and compare the results with the table.

    python benchmarks/retrain_row.py benchmarks/tables/digits.csv.gz 0 17 --data FOLDER

Rows are counted from 0. Each row is trained with the task of the table and its own seed. On the same kind of processor
with the same versions, the AP is equal to the last digit. Elsewhere training amplifies rounding, and the difference
must stay within the spread between seeds. --bn-images measures the same training with other re-estimated batch norms.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from spinenas.proxy_task.task import ProxyTask
from spinenas.results.record import Failure
from spinenas.results.stats.intervals import pooled_spread
from spinenas.results.training_table import TrainingTable, read_table
from spinenas.search.config.loading import load_config
from spinenas.space import Genotype


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("rows", nargs="+", type=int, metavar="ROW")
    parser.add_argument("--data", type=Path, help="folder of the data set; not needed for generated data")
    parser.add_argument(
        "--bn-images", type=int, metavar="N", help="value of task.eval.bn_images; default: that of the table"
    )
    arguments = parser.parse_args()
    started = time.perf_counter()
    table = read_table(arguments.table)
    print(f"read {len(table.trainings)} trainings in {time.perf_counter() - started:.2f} s")
    for row in arguments.rows:
        if not 0 <= row < len(table.trainings):
            sys.exit(f"row {row} is none of the table's, which are 0 to {len(table.trainings) - 1}")
    task = task_of(table, arguments.data, bn_images=arguments.bn_images)
    std = seed_spread(table)
    if std:
        print(f"another seed changes an AP by {std:.4f} (standard deviation within networks)")
    for row in arguments.rows:
        training = table.trainings[row]
        result = task.evaluate(Genotype.from_text(training.genotype), seed=training.seed)
        if isinstance(result, Failure):
            sys.exit(f"row {row} ended in a failure: {result.kind}: {result.message}")
        apart = abs(result.objective - training.ap)
        print(
            f"row {row}: AP {training.ap:.4f} in the table, {result.objective:.4f} now, "
            + ("the same" if apart == 0 else f"{apart / std:.2f} standard deviations apart" if std else "apart"),
            flush=True,
        )


def task_of(table: TrainingTable, data: Path | None, *, bn_images: int | None = None) -> ProxyTask:
    """Make the task of a table, or exit with the reason why it cannot be made."""
    overrides: dict[str, str | int] = {} if data is None else {"task.data.folder": str(data.absolute())}
    if bn_images is not None:
        overrides["task.eval.bn_images"] = bn_images
    config = load_config({"task": table.about["task"]}, overrides)
    task = ProxyTask(config.task, threads=table.about["threads"])
    task.prepare()
    if task.fingerprint != table.about["data"]:
        sys.exit(
            f"the data is other than the table's: {task.fingerprint}, not {table.about['data']}; give that by --data"
        )
    return task


def seed_spread(table: TrainingTable) -> float:
    """Return the pooled standard deviation of AP within networks; 0 if none was trained twice."""
    groups: dict[str, list[float]] = {}
    for training in table.trainings:
        groups.setdefault(training.network_key, []).append(training.ap)
    spread = pooled_spread(groups.values())
    return 0.0 if spread is None else spread.std


if __name__ == "__main__":
    main()
