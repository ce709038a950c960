"""Print the error of predicted seconds and memory for genotypes and fidelities outside the calibration.

    spinenas bench proxy quickstart --calibrate
    python benchmarks/cost_prediction.py quickstart --genotypes 14 --trials 3

Random genotypes are probed at the task's fidelity and at changed ones, in random order. Each figure is the faster of
two probes. Then whole trials are run. On a CPU the seconds are processor time, as in the calibration.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version

import numpy as np
from benchmark_task import small

from spinenas.proxy_task.cost_model import calibrate, load_model
from spinenas.proxy_task.probe import Probe
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.training.device import device_name
from spinenas.results.record import Fidelity
from spinenas.search.config.loading import load_config
from spinenas.space.genotype import Genotype
from spinenas.space.random_streams import generator
from spinenas.space.search_space import space_by_name

FIGURES = ("step_seconds", "detect_seconds", "trial_seconds", "peak_memory_bytes")


def fidelities(base: Fidelity) -> dict[str, Fidelity]:
    """The task's fidelity, and changes that no probe of a calibration has."""
    wide = replace(base.scaling, filter_scale=2 * base.scaling.filter_scale)
    return {
        "its own": base,
        "64 px more": replace(base, image_size_pixels=base.image_size_pixels + 64),
        "twice the batch": replace(base, batch_size=2 * base.batch_size),
        "twice the width": replace(base, scaling=wide),
        "all three": replace(
            base, scaling=wide, batch_size=2 * base.batch_size, image_size_pixels=base.image_size_pixels + 64
        ),
    }


def measured(
    task: ProxyTask, genotypes: Sequence[Genotype], at: dict[str, Fidelity], clock: object
) -> dict[tuple[str, int], list[Probe]]:
    """Two probes for each fidelity and genotype."""
    jobs = [(name, index) for name in at for index in range(len(genotypes))] * 2
    probes: dict[tuple[str, int], list[Probe]] = {}
    for position in generator(0, "order").permutation(len(jobs)):
        name, index = jobs[position]
        probe = task.probe(genotypes[index], at[name], clock=clock)  # type: ignore[arg-type]
        probes.setdefault((name, index), []).append(probe)
    return probes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--data", help="data set folder")
    parser.add_argument(
        "--small", action="store_true", help="try the script with a small task, which is calibrated first"
    )
    parser.add_argument("--genotypes", type=int, default=14)
    parser.add_argument("--trials", type=int, default=3, help="number of whole trials at the end")
    options = parser.parse_args()
    data = {} if options.data is None else {"task.data.folder": os.path.abspath(options.data)}
    config = load_config({"preset": options.preset}, data)
    task = ProxyTask(small(config.task) if options.small else config.task, threads=config.executor.threads_per_trial)
    task.prepare()
    space = space_by_name("tiny" if options.small else config.space.name)
    model = calibrate(task, space, print) if options.small else load_model(task)
    if model is None:
        raise SystemExit(f"there is no calibration yet: spinenas bench proxy {options.preset} --calibrate")
    clock = time.process_time if task.device == "cpu" and task.threads == 1 else time.perf_counter
    genotypes = [space.sample(generator(1, "cost-prediction", number)) for number in range(options.genotypes)]
    print(f"{device_name(task.torch_device)}, torch {version('torch')}, Python {platform.python_version()}, ", end="")
    print(f"{task.threads} thread(s), load {os.getloadavg()[0]:.1f}")
    task.probe(genotypes[0])
    at = fidelities(task.fidelity)
    if options.small:
        at = {name: at[name] for name in ("its own", "64 px more")}
    probes = measured(task, genotypes, at, clock)
    print(f"{'fidelity':<17}{'figure':<20}{'median':>8}{'largest':>9}{'mean':>8}{'spread':>8}{'r':>7}")
    for name, fidelity in at.items():
        predicted = [model.predict(task, genotype, fidelity) for genotype in genotypes]
        for figure in FIGURES:
            true = np.array([min(getattr(p, figure) for p in probes[name, i]) for i in range(len(genotypes))], float)
            guess = np.array([getattr(p, figure) for p in predicted], float)
            error = guess / true - 1
            print(
                f"{name:<17}{figure:<20}{np.median(abs(error)):8.1%}{abs(error).max():9.1%}{error.mean():+8.1%}"
                f"{true.std() / true.mean():8.1%}{np.corrcoef(guess, true)[0, 1]:7.2f}"
            )
    for genotype in genotypes[: options.trials]:
        predicted_probe = model.predict(task, genotype)
        started = clock()
        result = task.evaluate(genotype, seed=0)
        seconds, peak = clock() - started, getattr(result, "peak_memory_bytes", None) or 0
        print(
            f"a whole trial: {seconds:.1f} s, {predicted_probe.trial_seconds / seconds - 1:+.1%} predicted; "
            f"{peak / 2**20:.0f} MiB, {(predicted_probe.peak_memory_bytes or 0) / max(1, peak) - 1:+.1%}"
        )
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
