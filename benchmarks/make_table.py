"""Make a table of trainings from studies: runs of `spinenas proxy noise` with AP after each epoch.

    python benchmarks/make_table.py random=runs/random mutants=runs/mutants --out benchmarks/tables/digits.csv.gz

Each run is given as ORIGIN=RUN. All runs must have the same task. Incomplete trials are left out. --extend adds the
trainings to an existing table, so that a long table can be made in parts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from spinenas.proxy_task.config import BUILT_IN
from spinenas.results.record import Status
from spinenas.results.training_table import Training, read_table, training_of, write_table
from spinenas.search.run.run import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="ORIGIN=RUN")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--extend", action="store_true", help="add to an existing table")
    arguments = parser.parse_args()
    about: dict[str, Any] = {}
    task_keys: set[str] = set()
    trainings: list[Training] = []
    if arguments.extend:
        table = read_table(arguments.out)
        about, trainings = dict(table.about), list(table.trainings)
        task_keys.add(about["task_key"])
    for given in arguments.runs:
        origin, _, path = given.partition("=")
        run = Run.open(path)
        info, config = run.folder.run_info(), run.folder.config()
        # Local paths of the data and its cache do not belong in a published table.
        folder = config["task"]["data"]["folder"]
        data = {
            **config["task"]["data"],
            "folder": folder if folder == BUILT_IN else "",
            "cache_folder": None,
        }
        made_by = about
        about = {
            "space": config["space"]["name"],
            "task": {**config["task"], "data": data},
            "threads": config["executor"]["threads_per_trial"],
            "data": info["data"],
            "versions": info["versions"],
            "platform": info["platform"],
            "device": info["device"],
        }
        for name in ("space", "threads", "versions", "device"):
            if made_by and made_by[name] != about[name]:
                sys.exit(f"{path}: its {name} is {about[name]}, not {made_by[name]}; a table says one for all its rows")
        known = {(training.network_key, training.seed) for training in trainings}
        for record in run.records():
            task_keys.add(record.task_key)
            is_intact = record.status is Status.COMPLETE and record.fidelity is None
            if is_intact and (record.network_key, record.seed) not in known:
                trainings.append(training_of(record, run.folder.read_curve(record.number), origin))
    if len(task_keys) != 1:
        sys.exit("these runs are of different tasks; a table has one")
    about["task_key"] = task_keys.pop()
    write_table(arguments.out, about, trainings)
    networks = {training.network_key for training in trainings}
    print(f"{len(trainings)} trainings of {len(networks)} networks, {arguments.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
