"""Predicts the cost of a search's trials on this machine from the stored calibration."""

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
"""Number of random genotypes to predict."""

MEMORY_MARGIN = 1.25
"""Factor on the largest predicted peak: allocators keep unused memory, and larger genotypes may come."""


def predicted_rows(config: SearchConfig, note: Note, *, calibrate_first: bool) -> list[dict[str, Any]]:
    """Return predictions as rows {"what", "value"}. Raises UserError.

    Args:
        config: configuration of the search.
        note: receives progress lines.
        calibrate_first: measure first, and replace any stored calibration.
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
    """Return executor.gpu_memory_gib for trials with this peak, and the number of such trials that fit one device.

    The number is 0 if not even one fits.
    """
    memory_gib = math.ceil(10 * MEMORY_MARGIN * peak_bytes / 2**30) / 10
    # Shares of a device are whole hundredths, as in `packed_share`.
    return memory_gib, 100 // math.ceil(100 * memory_gib / device_gib)
