"""The configuration of a search: TOML or a preset, overridden by name, checked once; nothing of how it is run.

preset = "coco-small"          # optional: what is not given is the preset's
seed = 1
[budget]
num_trials = 50
[task.train]
epochs = 8
"""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from spinenas.controller.choices import CONTROLLERS
from spinenas.proxy_task.config import BUILT_IN, DataConfig, TaskConfig
from spinenas.results.leaderboard import Worth
from spinenas.search.config_document import merged_tables, read_document, with_overrides
from spinenas.search.constraints import ConstraintsConfig
from spinenas.search.controller_config import ControllerConfig
from spinenas.search.objective import ObjectiveConfig
from spinenas.space.errors import UserError, nearest
from spinenas.space.limits import CostTarget
from spinenas.space.search_space import space_by_name


@dataclass(frozen=True, slots=True)
class SpaceConfig:
    """Which architectures exist.

    Attributes:
        name: one of `spinenas.space.SPACES`.
    """

    name: str = "spinenet49"

    def __post_init__(self) -> None:
        space_by_name(self.name)


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """How much is tried.

    Attributes:
        num_trials: trainings in all.
        replicate_share: share of them that trains the leaders again with other seeds, at the end; what is left of it
            once the winner is settled is not spent.
        max_accelerator_hours: no trial is begun that would not end within so many hours of accelerators in all, at
            the mean of the trials so far (a worker on CPUs counts as one accelerator); None for no limit.
        price_per_accelerator_hour: in your currency; what `--dry-run` reckons with.
    """

    num_trials: int = 100
    replicate_share: float = 0.1
    max_accelerator_hours: float | None = None
    price_per_accelerator_hour: float | None = None

    def __post_init__(self) -> None:
        if self.num_trials < 1:
            raise UserError(f"budget.num_trials is {self.num_trials}; it is at least 1")
        if not 0 <= self.replicate_share < 1:
            raise UserError(f"budget.replicate_share is {self.replicate_share}; it is 0 or more and below 1")
        _check_positive("budget", self, "max_accelerator_hours", "price_per_accelerator_hour")


@dataclass(frozen=True, slots=True)
class ExecutorConfig:
    """Where trials run.

    Attributes:
        kind: "ray", warm actors; "serial", one after the other in this process; "tune", Ray Tune.
        workers: trials at a time ("serial": one); on a cluster, as many as find room, as it grows and shrinks.
        cpus_per_worker: what Ray reserves.
        gpus_per_worker: what Ray reserves, a fraction is fine; None shares all GPUs evenly, 0 trains on the CPU.
        gpu_memory_gib: what a trial may take of a GPU's memory (`spinenas preflight` tells the peak of one); as many
            workers share each GPU as it holds, and a trial that takes more has run out of memory itself.
        tpus_per_worker: whole chips, 0, 1, 2, 4 or 8; experimental, it has not run on hardware yet.
        threads_per_trial: CPU threads; sums differ in the last bit with their number.
        processes_per_trial: 1; reserved for trials of several processes.
        address: of a running Ray cluster, or "auto"; None or "local" starts Ray on this machine.
        ship_code: send this installation's spinenas to the workers of a cluster, so that all run the same code.
        data_command: a shell command that fetches the data, run once on each machine before its first trial.
        ordered: ask for a trial only when all but the `workers` trials before it have told their results, in
            the order of their numbers: the same run, whoever finishes first.
        trial_minutes: a trial that takes longer is ended and has failed; None for no limit. Counted anew for each
            attempt, and after each rung of halving.
        stall_minutes: a worker that says nothing for so long is remarked on.
        max_attempts: how often a trial is tried whose worker dies on a machine that lives on.
        out_of_memory_retries: how often a trial that runs out of memory is tried again with half the batch.
        max_errors: the run stops when so many trials of a session failed by a bug or invalid data.
    """

    kind: Literal["ray", "serial", "tune"] = "ray"
    workers: int = 2
    cpus_per_worker: float = 1.0
    gpus_per_worker: float | None = None
    gpu_memory_gib: float | None = None
    tpus_per_worker: int = 0
    threads_per_trial: int = 1
    processes_per_trial: int = 1
    address: str | None = None
    ship_code: bool = True
    data_command: str | None = None
    ordered: bool = False
    trial_minutes: float | None = None
    stall_minutes: float = 10.0
    max_attempts: int = 4
    out_of_memory_retries: int = 0
    max_errors: int = 3

    def __post_init__(self) -> None:
        for name in ("workers", "threads_per_trial", "max_attempts", "max_errors"):
            if getattr(self, name) < 1:
                raise UserError(f"executor.{name} is {getattr(self, name)}; it is at least 1")
        for name in ("cpus_per_worker", "gpus_per_worker", "out_of_memory_retries"):
            if (getattr(self, name) or 0) < 0:
                raise UserError(f"executor.{name} is {getattr(self, name)}; it is 0 or more")
        _check_positive("executor", self, "trial_minutes", "stall_minutes", "gpu_memory_gib")
        if self.gpu_memory_gib is not None and (self.gpus_per_worker is not None or self.tpus_per_worker):
            raise UserError(
                "executor.gpu_memory_gib says how workers share GPUs; leave out executor.gpus_per_worker and "
                "executor.tpus_per_worker"
            )
        if self.tpus_per_worker not in (0, 1, 2, 4, 8):
            raise UserError(f"executor.tpus_per_worker is {self.tpus_per_worker}; Ray lends 1, 2, 4 or 8 whole chips")
        if self.tpus_per_worker and self.gpus_per_worker:
            raise UserError("a worker has GPUs or TPUs; leave out executor.gpus_per_worker or executor.tpus_per_worker")
        if self.processes_per_trial != 1:
            raise UserError(
                f"executor.processes_per_trial is {self.processes_per_trial}; a trial is one process in this version"
            )

    @property
    def trial_seconds(self) -> float | None:
        """The time limit of a trial; None for no limit."""
        return None if self.trial_minutes is None else 60 * self.trial_minutes


@dataclass(frozen=True, slots=True)
class HalvingConfig:
    """Which trainings are stopped early: asynchronous successive halving (`results/halving.py`).

    Trainings of leaders with other seeds are never stopped.

    Attributes:
        rungs: epochs, ascending, after each of which a training goes on only if it is among the best there so far;
            below task.train.epochs, and multiples of task.eval.every_epochs. Empty: nothing is stopped.
        reduction: the best 1/reduction go on.
        min_results: all go on while fewer than so many have reached the rung. With the default reduction 4 is the
            first number of which two go on.
    """

    rungs: tuple[int, ...] = ()
    reduction: float = 3.0
    min_results: int = 4

    def __post_init__(self) -> None:
        if list(self.rungs) != sorted(set(self.rungs)) or min(self.rungs, default=1) < 1:
            raise UserError(f"halving.rungs is {list(self.rungs)}; it lists epochs, 1 or more, each above the last")
        if not 1 < self.reduction < math.inf:
            raise UserError(f"halving.reduction is {self.reduction}; it is a number above 1")
        if self.min_results < 1:
            raise UserError(f"halving.min_results is {self.min_results}; it is at least 1")


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """Where else a run is kept.

    Attributes:
        mirror: a URI of an object store or remote path (s3://, gs://, hdfs://, file://) that has every result before
            it counts, for a run whose folder dies with its machine; None for none.
    """

    mirror: str | None = None


@dataclass(frozen=True, slots=True)
class LoggingConfig:
    """What else is written of a search while it runs; all of it follows from the journal.

    Attributes:
        tensorboard: event files for TensorBoard, in the run's folder tensorboard/.
    """

    tensorboard: bool = False


def _check_positive(table: str, part: Any, *names: str) -> None:
    for name in names:
        value = getattr(part, name)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{table}.{name} is {value}; it is a number above 0")


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """A whole search; everything its result depends on, and where it runs.

    Attributes:
        seed: what every random decision is derived from.
    """

    space: SpaceConfig = field(default_factory=SpaceConfig)
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    halving: HalvingConfig = field(default_factory=HalvingConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    constraints: ConstraintsConfig = field(default_factory=ConstraintsConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        rungs, epochs, every = self.halving.rungs, self.task.train.epochs, self.task.eval.every_epochs
        if rungs and rungs[-1] >= epochs:
            raise UserError(
                f"halving.rungs has {rungs[-1]}, and a training has task.train.epochs = {epochs}; a rung lies below "
                "that: leave it out, or train longer"
            )
        unmeasured = [rung for rung in rungs if not every or rung % every]
        if unmeasured:
            raise UserError(
                f"halving.rungs has {unmeasured[0]}, after which epoch AP is not measured, with "
                f"task.eval.every_epochs = {every}; set that to {math.gcd(*rungs)}, or take multiples of it for rungs"
            )

    @classmethod
    def from_toml(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> SearchConfig:
        """Read a TOML file. Raises UserError.

        Args:
            path: the file; a key `preset` in it names what to start from.
            overrides: values by dotted key, which win over the file.
        """
        return load_config(read_document(Path(path))[1], overrides)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchConfig:
        """Check plain data, such as `to_json` gave. Raises UserError."""
        return _checked(data)

    def to_json(self) -> dict[str, Any]:
        """Plain data with every default filled in."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data

    def unused(self) -> list[str]:
        """Return a sentence for each value that was set and that other values leave without effect."""
        sentences = []
        chosen = self.controller.name
        for name in sorted(set(CONTROLLERS) - {chosen}):
            options = getattr(self.controller, name)
            for item in dataclasses.fields(options):
                if getattr(options, item.name) != item.default:
                    key = f"controller.{name}.{item.name}"
                    sentences.append(f"{key} has no effect, since controller.name is {chosen!r}")
        if self.constraints.are_any and chosen == "plan":
            sentences.append("constraints have no effect, since controller.name is 'plan'")
        if chosen == "plan" and self.objective.kind != "ap":
            sentences.append("objective.kind has no effect, since controller.name is 'plan'")
        if self.constraints.target is not None and not self.counts_costs:
            sentences.append("constraints.target has no effect, since no cost is limited and AP alone is the objective")
        for item in dataclasses.fields(self.objective):
            is_given = getattr(self.objective, item.name) != item.default
            if item.name != "kind" and is_given and self.objective.kind != "soft":
                sentences.append(
                    f'objective.{item.name} has no effect, since objective.kind is "{self.objective.kind}"'
                )
        unused: dict[str, tuple[str, ...]] = {
            "serial": ("gpus_per_worker", "gpu_memory_gib", "tpus_per_worker", "stall_minutes", "address"),
            "tune": ("stall_minutes",),
            "ray": (),
        }
        for item in dataclasses.fields(self.halving):
            if not self.halving.rungs and getattr(self.halving, item.name) != item.default:
                sentences.append(f"halving.{item.name} has no effect, since halving.rungs is empty")
        defaults = ExecutorConfig()
        for name in unused[self.executor.kind]:
            if getattr(self.executor, name) != getattr(defaults, name):
                sentences.append(f'executor.{name} has no effect, since executor.kind is "{self.executor.kind}"')
        return sentences

    def check_constraints(self) -> None:
        """Raise UserError where nothing is known that this search may propose. What is planned has no limits."""
        limits = self.constraints.limits(self.task)
        if limits is not None and self.controller.name != "plan":
            limits.check(space_by_name(self.space.name))

    @property
    def counts_costs(self) -> bool:
        """Whether anything depends on what architectures cost."""
        return self.constraints.are_any or self.objective.kind != "ap"

    def worth(self) -> Worth | None:
        """Return what an AP is worth at what its genotype costs; None for a search for AP, or for a front."""
        return self.objective.soft_cost(self.constraints.cost_target(self.task))

    def cost_target(self) -> CostTarget | None:
        """Return the detector that costs are counted in; None for the one that is trained."""
        return None if self.constraints.target is None else self.constraints.cost_target(self.task)

    def resolved(self) -> SearchConfig:
        """Fill in what follows from other values, so that it stays when the budget is extended later.

        The population, or a local search's beginning, follows the budget and data paths become absolute.
        """
        evolution = self.controller.evolution
        if self.controller.name == "evolution":
            population = evolution.population_size or min(64, max(2, self.budget.num_trials // 4))
            tournament = evolution.tournament_size or min(population, max(2, population // 2))
            evolution = replace(evolution, population_size=population, tournament_size=tournament)
        quarter = max(1, self.budget.num_trials // 4)
        local, screened, hybrid = self.controller.local, self.controller.screened, self.controller.hybrid
        if self.controller.name == "local" and local.num_random is None:
            local = replace(local, num_random=min(16, quarter))
        if self.controller.name == "screened" and screened.num_random is None:
            screened = replace(screened, num_random=min(60, quarter))
        if self.controller.name == "hybrid" and hybrid.num_random is None:
            hybrid = replace(hybrid, num_random=min(20, quarter))
        return replace(
            self,
            controller=replace(self.controller, evolution=evolution, screened=screened, hybrid=hybrid, local=local),
            task=replace(self.task, data=_absolute(self.task.data)),
        )


def load_config(document: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> SearchConfig:
    """Make a configuration from a TOML document, which may name a preset. Raises UserError.

    Args:
        document: nested tables; `preset` names what to start from, else the defaults are.
        overrides: values by dotted key such as "task.train.epochs", which win.
    """
    from spinenas.search.presets import preset  # presets are made of what is defined here

    given = with_overrides({key: value for key, value in document.items() if key != "preset"}, overrides or {})
    if "preset" in document:
        if not isinstance(document["preset"], str):
            raise UserError(f'preset is {document["preset"]!r}; it is the name of one, such as "quickstart"')
        given = merged_tables(preset(document["preset"]).to_json(), given)
    return _checked(given)


def _absolute(data: DataConfig) -> DataConfig:
    """The same data, wherever the run is resumed from."""
    values = asdict(data)
    for name, value in values.items():
        if isinstance(value, str) and value not in ("", BUILT_IN):
            values[name] = str(Path(value).expanduser().absolute())
    return DataConfig(**values)


# The tuple around it is what lets a TypeAdapter take a configuration for plain dataclasses.
_ADAPTER: TypeAdapter[tuple[SearchConfig]] = TypeAdapter(
    tuple[SearchConfig], config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
)


def _checked(data: Mapping[str, Any]) -> SearchConfig:
    # Through JSON text: in strict mode it is the form in which tables become dataclasses and lists tuples,
    # while nothing else is converted but integers to floats.
    try:
        return _ADAPTER.validate_json(json.dumps([data], default=str))[0]
    except ValidationError as error:
        raise UserError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    """Return the first problem as a sentence with its key, and how many more there are."""
    problems = error.errors()
    problem = problems[0]
    path = tuple(str(part) for part in problem["loc"][1:])
    key = ".".join(path)
    if problem["type"] == "unexpected_keyword_argument":
        text = f"configuration key {key!r} is unknown{_nearest_key(path)}"
    elif problem["type"] == "missing":
        text = f"configuration key {key!r} is missing; give it a value"
    elif isinstance(cause := problem.get("ctx", {}).get("error"), UserError):
        text = str(cause)
    else:
        rule = problem["msg"].replace("Input should", "it should")
        text = f"configuration key {key!r} is {problem['input']!r}; {rule}"
    return text + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")


def _nearest_key(path: tuple[str, ...]) -> str:
    keys = list(_dotted_keys(SearchConfig))
    same_name = [key for key in keys if key.split(".")[-1] == path[-1]]
    if same_name:
        return f"; did you mean {' or '.join(map(repr, same_name))}?"
    parent = ".".join(path[:-1])
    return nearest(".".join(path), [key for key in keys if key.rpartition(".")[0] == parent])


def _dotted_keys(part: type, prefix: str = "") -> Iterator[str]:
    """Every key of a configuration dataclass, those of its parts included."""
    for name, hint in typing.get_type_hints(part).items():
        yield prefix + name
        for option in _alternatives(hint):
            if isinstance(option, type) and dataclasses.is_dataclass(option):
                yield from _dotted_keys(option, f"{prefix}{name}.")


def _alternatives(hint: Any) -> Iterable[Any]:
    return [option for option in typing.get_args(hint) or (hint,) if isinstance(option, type)]
