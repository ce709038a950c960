"""One architecture through the task of a search, with its figures on val: a run of a single trial.

The only place, beside final reports, where val is looked at; a search is never told what comes out here.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from spinenas.controller.base import Proposal, SpaceExhausted
from spinenas.proxy_task.config import TaskConfig
from spinenas.results.record import Evaluation, Failure, Fidelity
from spinenas.results.storage.run_folder import RunFolder
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.constraints import ConstraintsConfig
from spinenas.search.config.objective import ObjectiveConfig
from spinenas.search.config.parts import BudgetConfig, HalvingConfig, StorageConfig
from spinenas.search.executors.base import Report, Task
from spinenas.search.monitoring.base import Display
from spinenas.search.run.components import proxy_task
from spinenas.search.run.lifecycle import start_run
from spinenas.search.run.run import Run
from spinenas.space.baseline import Architecture, architecture_from_text
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.scaling import Scaling

ValMetrics = dict[str, float | None]


class ReplayTask(Task, Protocol):
    """A task that can look at val too."""

    def prepare(self, *, with_val: bool = False) -> None:
        """Make the data ready, val as well if asked. Raises UserError."""

    def replay(
        self,
        genotype: Architecture,
        *,
        seed: int,
        folder: Path,
        report: Report,
        scaling: Scaling | None,
    ) -> tuple[Evaluation | Failure, ValMetrics]:
        """Do what `evaluate` does, and measure on val as well."""


def replay(
    genotype: Architecture,
    config: SearchConfig,
    *,
    name: str,
    out: str | Path,
    scaling: Scaling | None = None,
    task: ReplayTask | None = None,
    display: Display | None = None,
    config_toml: str = "",
) -> tuple[Run, ValMetrics]:
    """Train one architecture as a search would have, and measure it on the reward images and on val.

    Args:
        genotype: what is trained.
        config: whose task and seed; the same network in a search of this seed is trained the same.
        name: what it is called.
        out: the folder of the run; the figures on val are in its replay.json.
        scaling: another width and depth than the task's.
        task: what measures it; None for the proxy task of the configuration.
        display: who watches.
        config_toml: the configuration as given, to be kept.

    Returns:
        The run, and the metrics on val (empty when the training failed).

    Raises UserError.
    """
    config = replace(
        config.resolved(),
        budget=BudgetConfig(num_trials=1, replicate_share=0.0),
        executor=replace(config.executor, kind="serial"),
        storage=StorageConfig(),  # a search's mirror is not for the replays of its trials
        constraints=ConstraintsConfig(),
        objective=ObjectiveConfig(),
        halving=HalvingConfig(),
    )
    with_val = _WithVal(task or proxy_task(config))  # type: ignore[arg-type]  # a proxy task can replay
    run = start_run(
        config,
        out=out,
        task=with_val,
        display=display,
        config_toml=config_toml,
        kind="replay",
        controller_for=lambda _, task: _Single(
            Proposal(
                0,
                genotype,
                fidelity=None if scaling is None else replace(task.fidelity, scaling=scaling),
                origin=f"replay:{name}",
            )
        ),
    )
    blocks = genotype.to_json() if isinstance(genotype, Genotype) else None
    run.folder.write_replay({"architecture": name, "genotype": blocks, "val": with_val.metrics})
    return run, with_val.metrics


def replay_weights(path: Path, task: TaskConfig, *, out: Path) -> ValMetrics:
    """Measure a weights file on the val images of a task's data, and keep the figures in out/replay.json.

    Size, head and decoding are the file's own; of the task, the data and the thresholds of detection count.
    Raises UserError.
    """
    from spinenas.proxy_task.evaluation.evaluate_weights import evaluate_weights
    from spinenas.proxy_task.weights.weights_file import load_detector

    RunFolder.check_free(out)
    network, spec = load_detector(path)
    try:
        out.mkdir(parents=True, exist_ok=True)  # before the work: what cannot be kept must not be waited for
    except OSError as error:
        raise UserError(f"cannot make the folder {out}: {error.strerror}; choose another one") from error
    try:
        metrics = evaluate_weights(network, spec, task.data, task.eval)
    except BaseException:
        with contextlib.suppress(OSError):
            out.rmdir()
        raise
    architecture = architecture_from_text(spec.architecture)
    blocks = architecture.to_json() if isinstance(architecture, Genotype) else None
    document = {"architecture": spec.name, "genotype": blocks, "val": metrics}
    about = {"weights": str(path.absolute()), "data": asdict(task.data), "eval": asdict(task.eval)}
    RunFolder(out).write_replay(document | about)
    return metrics


class _WithVal:
    """A task whose evaluation looks at val as well, and keeps what it saw."""

    def __init__(self, task: ReplayTask):
        self._task = task
        self.metrics: ValMetrics = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def prepare(self) -> None:
        # Before the training: what is wrong with val must not cost one.
        self._task.prepare(with_val=True)

    def evaluate(
        self,
        genotype: Architecture,
        *,
        seed: int,
        fidelity: Fidelity | None,
        attempt: int,
        folder: Path,
        report: Report,
        until: int | None,
    ) -> Evaluation | Failure:
        assert until is None, "a replay has no rungs"
        scaling = None if fidelity is None else fidelity.scaling
        result, self.metrics = self._task.replay(genotype, seed=seed, folder=folder, report=report, scaling=scaling)
        return result


class _Single:
    """A controller with one proposal."""

    def __init__(self, proposal: Proposal):
        self._proposals = [proposal]

    def ask(self) -> Proposal | None:
        if not self._proposals:
            raise SpaceExhausted("the one proposal was made")
        return self._proposals.pop()

    def tell(self, number: int, result: Evaluation | Failure) -> bool:
        return True

    def observe(self, genotype: Architecture, evaluation: Evaluation) -> None:
        """There is nothing to learn."""

    def replay_ask(self, proposal: Proposal) -> None:
        self._proposals.clear()
