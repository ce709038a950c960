"""Predicts the cost of a search's trials on this machine from the stored calibration."""

from __future__ import annotations

import math
import statistics

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


def predicted_facts(config: SearchConfig, note: Note, *, calibrate_first: bool) -> dict[str, float]:
    """Return predictions by name. Raises UserError.

    Args:
        config: configuration of the search.
        note: receives progress lines.
        calibrate_first: measure first, and replace any stored calibration.
    """
    task = ProxyTask(config.task, threads=config.executor.threads_per_trial)
    space = space_by_name(config.space.name)
    if calibrate_first:
        task.prepare()
        note(f"the calibration is in {save_model(calibrate(task, space, note), task)}")
    model = load_model(task)
    if model is None:
        raise UserError(
            f"there is no calibration of this task for {device_name(task.torch_device)} with "
            f"{task.threads} thread{'s' if task.threads > 1 else ''} yet; make one with --calibrate"
        )
    predicted = [model.predict(task, genotype) for genotype in random_genotypes(space, NUM_PREDICTED)]
    facts = _facts(predicted, model)
    peaks = [probe.peak_memory_bytes for probe in predicted if probe.peak_memory_bytes is not None]
    if peaks and task.device != "cpu":
        memory_gib, num_trials = packing(max(peaks), accelerator_memory_gib())
        facts |= {"executor.gpu_memory_gib to set": memory_gib, "trials that fit one device": num_trials}
    return facts


def _facts(predicted: list[Probe], model: CostModel) -> dict[str, float]:
    figures = {
        "seconds of a step": [probe.step_seconds for probe in predicted],
        "minutes of a trial": [probe.trial_seconds / 60 for probe in predicted],
    }
    fits = {"seconds of a step": model.step_seconds, "seconds of detection in an image": model.detect_seconds}
    if model.peak_memory_bytes is not None:
        figures["GiB of peak memory"] = [(probe.peak_memory_bytes or 0) / 2**30 for probe in predicted]
        fits["GiB of peak memory"] = model.peak_memory_bytes
    facts: dict[str, float] = {}
    for what, values in figures.items():
        facts |= {f"{what}, median": statistics.median(values), f"{what}, largest": max(values)}
    for what, fit in fits.items():
        what = f"{what}, held-out error"
        facts |= {f"{what}, median": fit.median_error, f"{what}, largest": fit.largest_error}
    return facts


def packing(peak_bytes: float, device_gib: float) -> tuple[float, int]:
    """Return executor.gpu_memory_gib for trials with this peak, and the number of such trials that fit one device.

    The number is 0 if not even one fits.
    """
    memory_gib = math.ceil(10 * MEMORY_MARGIN * peak_bytes / 2**30) / 10
    # Shares of a device are whole hundredths, as in `packed_share`.
    return memory_gib, 100 // math.ceil(100 * memory_gib / device_gib)
