"""The end of a search: its winner, SpineNet-49 and a random control are trained alike and compared on val, once.

The trainings are a run of their own, of stage "validate", with seeds that the search has not used: the winner's own
figures were the reason for choosing it. Nothing that comes out here may go back into the search.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from spinenas.results.record import Stage, TrialRecord
from spinenas.results.stats.bootstrap import RESAMPLES, Difference, compare
from spinenas.results.storage.run_folder import RunFolder
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.loading import stored_config
from spinenas.search.config.parts import BudgetConfig, StorageConfig
from spinenas.search.monitoring.base import Display
from spinenas.search.run.components import fetch_data, proxy_task
from spinenas.search.run.run import Run
from spinenas.search.run.val_task import ValTask
from spinenas.search.studies.study import run_study
from spinenas.space.baseline import Architecture, architecture_from_text
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.published import SPINENET_49
from spinenas.space.random_streams import generator, seed_for
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace, space_by_name

Document = dict[str, Any]
"""What validation.json holds: all figures of a validation, as plain data."""

WINNER, CONTROL = "the winner", "the random control"


@dataclass(frozen=True, slots=True)
class Contender:
    """One of those compared.

    Attributes:
        name: as sentences have it.
        origin: where it comes from.
        architecture: what is built.
    """

    name: str
    origin: str
    architecture: Architecture


def validate(
    run: Run,
    *,
    seeds: int = 3,
    out: Path | None = None,
    config: SearchConfig | None = None,
    task: ValTask | None = None,
    display: Display | None = None,
) -> Document:
    """Compare the winner of a search with the others on val, go on with that, or only tell what came out.

    Args:
        run: the search.
        seeds: trainings of each, two or more.
        out: the folder of the trainings; None for "validation" in the run's own.
        config: the run's, maybe with another executor; None for the run's as it is.
        task: what measures an architecture; None for the proxy task of the configuration.
        display: who watches.

    Raises UserError.
    """
    out = out or validation_folder(run)
    config = config or stored_config(run.folder.config())
    chosen = contenders(run, config)
    _check_same(out, chosen, seeds)
    found = RunFolder(out).read_validation()
    if found is not None:
        return found
    fetch_data(config)
    task = task or cast(ValTask, proxy_task(config))
    _check_task(run, task)
    study_config = replace(
        config,
        # With the seeds of the search the winner would have the very runs again that it was chosen for.
        seed=seed_for(config.seed, "validation"),
        budget=BudgetConfig(),
        storage=StorageConfig(),  # a search's mirror is not for the trainings that follow it
    )
    architectures = [contender.architecture for contender in chosen]
    study = run_study(
        study_config, architectures, seeds, out=out, stage=Stage.VALIDATE, task=task, display=display
    )  # fmt: skip
    document = _compared(study, chosen, task, config.seed)
    study.folder.write_validation(document)
    return document


def validation_folder(run: Run) -> Path:
    """Where a run is validated, unless told otherwise."""
    return run.folder.path / "validation"


def contenders(run: Run, config: SearchConfig) -> list[Contender]:
    """The winner of a search, SpineNet-49 where the space has it, and a random genotype. Raises UserError."""
    path = run.folder.path
    if config.controller.name == "plan" or run.folder.run_info().get("kind") == "replay":
        raise UserError(f"{path} is no search and has no winner to be validated; name the folder of a search")
    record = run.winner()
    if record is None:
        raise UserError(f"{path} has no complete trial yet; resume the run first")
    space = space_by_name(config.space.name)
    winner = record.genotype or architecture_from_text(record.architecture)
    chosen = [Contender(WINNER, f"trial {record.number}", winner)]
    if network_key(SPINENET_49) != record.network_key and space.contains(SPINENET_49):
        chosen.append(Contender("SpineNet-49", "published", SPINENET_49))
    known = {network_key(contender.architecture) for contender in chosen}
    return [*chosen, Contender(CONTROL, "random", _control(space, config.seed, known))]


def _control(space: SearchSpace, seed: int, known: set[str]) -> Genotype:
    """Draw a genotype without dead blocks, another network than those known. Raises UserError."""
    for number in range(100):
        genotype = sample_without_dead_blocks(space, generator(seed, "validation/control", number))
        if network_key(genotype) not in known:
            return genotype
    raise UserError(f"the space {space.name!r} gives no other network as a control; search a larger one")


def _check_same(out: Path, chosen: Sequence[Contender], seeds: int) -> None:
    """Raise UserError where a folder holds anything but this validation, begun or done."""
    if not (out / "journal.jsonl").exists():
        return
    plan = stored_config(RunFolder.open(out).config()).controller.plan
    if plan.stage != Stage.VALIDATE:
        raise UserError(f"{out} holds another run; give another --out")
    before, now = architecture_from_text(plan.architectures[0]), chosen[0].architecture
    if before != now:
        raise UserError(
            f"{out} holds the validation of {before.key}, and the winner is now {chosen[0].origin}, {now.key}: val is "
            "for one winner; give another --out if it must be looked at again"
        )
    if plan.replicates != seeds:
        raise UserError(
            f"{out} holds a validation with {plan.replicates} seeds, not {seeds}, and val is looked at once; "
            f"give --seeds {plan.replicates}"
        )


def _check_task(run: Run, task: ValTask) -> None:
    """Raise UserError unless a task is still that of a run."""
    before = run.state().run
    for name, now in (("data", task.fingerprint), ("task_key", task.key)):
        if before.get(name) != now:
            what = "data" if name == "data" else "task"
            raise UserError(
                f"{run.folder.path} cannot be validated, the {what} changed since the search; bring back what it was"
            )


def _compared(study: Run, chosen: Sequence[Contender], task: ValTask, seed: int) -> Document:
    """Say what the trainings of a validation come to. Raises UserError."""
    records = study.records()
    trained = {contender.name: _trainings(records, contender) for contender in chosen}
    if not trained[WINNER]:
        failures = [record.failure for record in records if record.failure]
        said = f"; the last failure: {failures[-1].kind}, {failures[-1].message}" if failures else ""
        raise UserError(f"{study.folder.path} has no result for the winner{said}")
    if max(map(len, trained.values())) < 2:
        raise UserError(
            f"{study.folder.path} has no architecture with results for two seeds, so that their spread is unknown; "
            "validate with more --seeds in another --out"
        )
    matches = {
        name: [task.val_matches(study.folder.trial_folder(record.number)) for record in group]
        for name, group in trained.items()
        if group
    }
    found = compare(matches, generator(seed, "validation/bootstrap"), resamples=RESAMPLES)
    rows = []
    for number, contender in enumerate(chosen):
        name, architecture = contender.name, contender.architecture
        rewards = [record.evaluation.objective for record in trained[name] if record.evaluation]
        val = found.means.get(name)
        rows.append(
            {
                "architecture": name.removeprefix("the "),
                "origin": contender.origin,
                "key": architecture.key,
                "network_key": network_key(architecture),
                "number": number,
                "text": architecture.text,
                "reward_AP": statistics.fmean(rewards) if rewards else None,
                "sd": statistics.stdev(rewards) if len(rewards) > 1 else None,
                "n": len(rewards),
                "val_AP": val and val.value,
                "lower": val and val.lower,
                "upper": val and val.upper,
                "reward_APs": rewards,
                "val_APs": [each.average_precision() for each in matches.get(name, [])],
            }
        )
    return {
        "seeds": len(records) // len(chosen),
        "num_val_images": matches[WINNER][0].num_images,
        "resamples": RESAMPLES,
        "val_std": found.spread.std,
        "architectures": rows,
        "comparisons": [asdict(pair) | {"sentence": sentence(pair)} for pair in found.differences],
    }


def _trainings(records: Sequence[TrialRecord], contender: Contender) -> list[TrialRecord]:
    key = network_key(contender.architecture)
    return [record for record in records if record.network_key == key and record.evaluation is not None]


def sentence(pair: Difference) -> str:
    """What can be said of two architectures, in plain words."""
    if pair.lower > 0:
        return (
            f"{pair.first} is {pair.value:.4f} AP above {pair.second} on val "
            f"(95 %: {pair.lower:.4f} to {pair.upper:.4f})"
        )
    if pair.upper < 0:
        return (
            f"{pair.first} is {-pair.value:.4f} AP below {pair.second} on val "
            f"(95 %: {-pair.upper:.4f} to {-pair.lower:.4f})"
        )
    return (
        f"no difference can be told between {pair.first} and {pair.second} on val: {pair.value:+.4f} AP "
        f"(95 %: {pair.lower:+.4f} to {pair.upper:+.4f})"
    )
