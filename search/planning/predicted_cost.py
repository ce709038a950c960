"""What the trials of a search take on this machine, as its stored calibration predicts it."""

from __future__ import annotations

import math
import statistics
from typing import Any

from spinenas.proxy_task.cost_model import CostModel, calibrate, load_model, random_genotypes, save_model
from spinenas.proxy_task.probe import Probe
from spinenas.proxy_task.task import ProxyTask
from spinenas.proxy_task.training.device import accelerator_memory_gib, device_name
from spinenas.search.config.config import SearchConfig
from spinenas.search.executors.base import Note
from spinenas.space.errors import UserError
from spinenas.space.search_space import space_by_name

NUM_PREDICTED = 200
"""Random genotypes that are predicted."""

MEMORY_MARGIN = 1.25
"""Of the largest predicted peak, for what an allocator keeps beyond what is in use, and for larger genotypes."""


def predicted_rows(config: SearchConfig, note: Note, *, calibrate_first: bool) -> list[dict[str, Any]]:
    """Return what is predicted, as {"what", "value"}. Raises UserError.

    Args:
        config: of the search.
        note: told what is being done.
        calibrate_first: measure, and keep the calibration in the place of any older one.
    """
    task = ProxyTask(config.task, threads=config.executor.threads_per_trial)
    space = space_by_name(config.space.name)
    model = None
    if calibrate_first:
        task.prepare()
        model = calibrate(task, space, note)
        note(f"the calibration is in {save_model(model, task)}")
    model = model or load_model(task)
    if model is None:
        raise UserError(
            f"there is no calibration of this task for {device_name(task.torch_device)} with "
            f"{task.threads} thread{'s' if task.threads > 1 else ''} yet; make one with --calibrate"
        )
    predicted = [model.predict(task, genotype) for genotype in random_genotypes(space, NUM_PREDICTED)]
    rows = _rows(predicted, model)
    peaks = [probe.peak_memory_bytes for probe in predicted if probe.peak_memory_bytes is not None]
    if peaks and task.device != "cpu":
        memory_gib, num_trials = packing(max(peaks), accelerator_memory_gib())
        rows.append({"what": "executor.gpu_memory_gib to set", "value": memory_gib})
        rows.append({"what": "trials that fit one device", "value": num_trials})
    return rows


def _rows(predicted: list[Probe], model: CostModel) -> list[dict[str, Any]]:
    figures = {
        "seconds of a step": [probe.step_seconds for probe in predicted],
        "minutes of a trial": [probe.trial_seconds / 60 for probe in predicted],
    }
    fits = {"seconds of a step": model.step_seconds, "seconds of detection in an image": model.detect_seconds}
    if model.peak_memory_bytes is not None:
        figures["GiB of peak memory"] = [(probe.peak_memory_bytes or 0) / 2**30 for probe in predicted]
        fits["GiB of peak memory"] = model.peak_memory_bytes
    rows: list[dict[str, Any]] = []
    for what, values in figures.items():
        rows.append({"what": f"{what}, median", "value": statistics.median(values)})
        rows.append({"what": f"{what}, largest", "value": max(values)})
    for what, fit in fits.items():
        rows.append({"what": f"{what}, held-out error, median", "value": fit.median_error})
        rows.append({"what": f"{what}, held-out error, largest", "value": fit.largest_error})
    return rows


def packing(peak_bytes: float, device_gib: float) -> tuple[float, int]:
    """Return what to set as executor.gpu_memory_gib for trials of this peak, and how many then fit a device.

    It is none where not even one fits.
    """
    memory_gib = math.ceil(10 * MEMORY_MARGIN * peak_bytes / 2**30) / 10
    # As Ray has it: whole hundredths of a device.
    return memory_gib, 100 // math.ceil(100 * memory_gib / device_gib)
