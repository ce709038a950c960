"""Replay: trains one architecture as a search does, and measures it on val; or measures a weights file on val.

A replay of an architecture is a study of one training, so that it resumes and runs on a cluster like any run.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from spinenas.proxy_task.config import TaskConfig
from spinenas.results.record import Stage
from spinenas.results.storage.run_folder import RunFolder
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.loading import stored_config
from spinenas.search.monitoring.base import Display
from spinenas.search.run.components import fetch_data, proxy_task, with_dtype
from spinenas.search.run.lifecycle import CONFIGURED_IN_PYTHON
from spinenas.search.run.run import Run
from spinenas.search.run.val_task import EVALUATED_BY, ValMetrics, ValTask
from spinenas.search.studies.study import check_same_val, run_study
from spinenas.space.baseline import Architecture, architecture_from_text
from spinenas.space.errors import UserError, explained_os_errors
from spinenas.space.genotype import Genotype


def replay(
    architecture: Architecture,
    config: SearchConfig,
    *,
    name: str,
    out: Path,
    task: ValTask | None = None,
    display: Display | None = None,
    config_toml: str = CONFIGURED_IN_PYTHON,
) -> tuple[Run, ValMetrics]:
    """Train one architecture as a search would, and measure it on the reward images and on val.

    If `out` holds the same replay, resume it, or return its figures.

    Args:
        architecture: what to train.
        config: its task, executor and seed are used; a search with this seed trains the same network identically.
        name: name of the architecture in replay.json.
        out: folder of the run; replay.json in it has the figures on val.
        task: evaluates the architecture; None for the proxy task of the configuration.
        display: shows progress.
        config_toml: the configuration as given, kept in the folder.

    Raises UserError, also if the training failed.
    """
    config = replace(config, executor=replace(config.executor, workers=1))
    begun_with = stored_config(RunFolder.open(out).config()) if (out / "journal.jsonl").exists() else None
    config = with_dtype(config, begun_with, display.note if display is not None else print)
    task = task or cast(ValTask, proxy_task(config))
    run = run_study(
        config,
        [architecture],
        1,
        out=out,
        stage=Stage.FULL,
        task=task,
        display=display,
        config_toml=config_toml,
    )
    failure = run.records()[0].failure
    if failure is not None:
        raise UserError(
            f"the training in {out} failed: {failure.kind}, {failure.message}; remove the cause and replay with "
            "another --out"
        )
    document = run.folder.read_replay()
    if document is None:
        fetch_data(config)
        check_same_val(run, task)
        document = _document(name, architecture, task.val_metrics(run.folder.trial_folder(0)))
        run.folder.write_replay(document)
    return run, document["val"]


def _document(name: str, architecture: Architecture, val: ValMetrics) -> dict[str, Any]:
    """Content of replay.json."""
    blocks = architecture.to_json() if isinstance(architecture, Genotype) else None
    return {"architecture": name, "genotype": blocks, "val": val, "evaluated_by": EVALUATED_BY}


def replay_weights(path: Path, task: TaskConfig, *, out: Path) -> ValMetrics:
    """Measure a weights file on the val images of a task's data, and write the figures to out/replay.json.

    Image size, head and decoding come from the file; the data and the detection thresholds come from the task.
    Raises UserError.
    """
    from spinenas.proxy_task.evaluation.evaluate_weights import evaluate_weights
    from spinenas.proxy_task.weights.weights_file import load_detector

    RunFolder.check_free(out)
    network, spec = load_detector(path)
    with explained_os_errors(f"cannot make the folder {out}", "choose another one"):
        out.mkdir(parents=True, exist_ok=True)  # before the work, which would be lost without a folder
    try:
        metrics = evaluate_weights(network, spec, task.data, task.eval)
    except BaseException:
        with contextlib.suppress(OSError):
            out.rmdir()
        raise
    document = _document(spec.name, architecture_from_text(spec.architecture), metrics)
    about = {"weights": str(path.absolute()), "data": asdict(task.data), "eval": asdict(task.eval)}
    RunFolder(out).write_replay(document | about)
    return metrics
