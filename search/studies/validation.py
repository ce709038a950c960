"""Validation: trains the winner of a search, SpineNet-49 and a random control alike, and compares them on val, once.

The trainings are a study of stage "validate" with fresh seeds, because the winner was selected on its own figures.
Results of a validation must not influence the search.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from spinenas.results.record import Stage, TrialRecord
from spinenas.results.stats.bootstrap import RESAMPLES, Difference, Matches, compare
from spinenas.results.storage.run_folder import RunFolder
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.loading import stored_config
from spinenas.search.monitoring.base import Display
from spinenas.search.run.components import fetch_data, proxy_task
from spinenas.search.run.identity import is_split_by_picture
from spinenas.search.run.run import Run
from spinenas.search.run.val_task import EVALUATED_BY, ValTask
from spinenas.search.studies.study import check_same_val, different_networks, run_study
from spinenas.space.baseline import Architecture, architecture_from_text
from spinenas.space.errors import UserError
from spinenas.space.genotype import Genotype
from spinenas.space.graph import network_key
from spinenas.space.published import SPINENET_49
from spinenas.space.random_streams import generator, seed_for
from spinenas.space.sampling import sample_without_dead_blocks
from spinenas.space.search_space import SearchSpace, space_by_name

Document = dict[str, Any]
"""Content of validation.json: all figures of a validation, as plain data."""

WINNER, CONTROL = "the winner", "the random control"


@dataclass(frozen=True, slots=True)
class Contender:
    """An architecture in the comparison.

    Attributes:
        name: name in sentences.
        origin: source of the architecture, such as "trial 3".
        architecture: the architecture to train.
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
    """Compare the winner of a search with the other contenders on val.

    If `out` holds the same validation, resume it, or return its figures.

    Args:
        run: the search.
        seeds: number of trainings of each contender, two or more.
        out: folder of the trainings; None for "validation" in the folder of the run.
        config: configuration of the run, whose executor may differ; None for the run's own.
        task: evaluates an architecture; None for the proxy task of the configuration.
        display: shows progress.

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
    # The search's own seeds would repeat the trainings that the winner was selected on.
    reseeded = replace(config, seed=seed_for(config.seed, "validation"))
    if display is not None:
        display.name_networks({network_key(each.architecture): each.name.removeprefix("the ") for each in chosen})
    architectures = [contender.architecture for contender in chosen]
    study = run_study(reseeded, architectures, seeds, out=out, stage=Stage.VALIDATE, task=task, display=display)
    check_same_val(study, task)
    document = _compare(study, chosen, task, config.seed)
    study.folder.write_validation(document)
    return document


def validation_folder(run: Run) -> Path:
    """Return the default folder of a run's validation."""
    return run.folder.path / "validation"


def contenders(run: Run, config: SearchConfig) -> list[Contender]:
    """Return the winner of a search, SpineNet-49 if the space contains it, and a random genotype. Raises UserError."""
    path = run.folder.path
    if config.controller.name == "plan" or run.folder.run_info().get("kind") == "replay":
        raise UserError(f"{path} is no search and has no winner to validate; give the folder of a search")
    record = run.winner()
    if record is None:
        raise UserError(f"{path} has nothing to validate; {run.no_winner()}")
    space = space_by_name(config.space.name)
    winner = record.genotype or architecture_from_text(record.architecture)
    chosen = [Contender(WINNER, f"trial {record.number}", winner)]
    if network_key(SPINENET_49) != record.network_key and space.contains(SPINENET_49):
        chosen.append(Contender("SpineNet-49", "published", SPINENET_49))
    known = {network_key(contender.architecture) for contender in chosen}
    return [*chosen, Contender(CONTROL, "random", _control(space, config.seed, known))]


def _control(space: SearchSpace, seed: int, known: set[str]) -> Genotype:
    """Draw a genotype without dead blocks that builds none of the known networks. Raises UserError."""
    drawn = (sample_without_dead_blocks(space, generator(seed, "validation/control", number)) for number in range(100))
    chosen = different_networks(drawn, 1, known)
    if not chosen:
        raise UserError(f"the space {space.name!r} gives no other network as a control; search a larger one")
    return chosen[0]


def _check_same(out: Path, chosen: Sequence[Contender], seeds: int) -> None:
    """Raise UserError if a folder holds a run other than this validation."""
    if not (out / "journal.jsonl").exists():
        return
    plan = stored_config(RunFolder.open(out).config()).controller.plan
    if plan.stage != Stage.VALIDATE:
        raise UserError(f"{out} holds another run; give another --out")
    before, now = architecture_from_text(plan.architectures[0]), chosen[0].architecture
    if before != now:
        raise UserError(
            f"{out} holds the validation of {before.key}, and the winner is now {chosen[0].origin}, {now.key}: val is "
            "for one winner; give another --out to use val once more"
        )
    if plan.replicates != seeds:
        raise UserError(
            f"{out} holds a validation with {plan.replicates} seeds, not {seeds}, and val is used once; "
            f"give --seeds {plan.replicates}"
        )


def _check_task(run: Run, task: ValTask) -> None:
    """Raise UserError unless task and data are those of a search."""
    before = run.state().run
    if is_split_by_picture(before.get("data"), task.fingerprint):
        raise UserError(
            f"{run.folder.path} cannot be validated: several entries or files of its data show one picture, and its "
            "reward images were also trained on; start a new run, whose hold-out keeps them together"
        )
    for name, what, now in (("data", "data", task.fingerprint), ("task_key", "task", task.key)):
        if before.get(name) != now:
            raise UserError(
                f"{run.folder.path} cannot be validated, the {what} changed since the search; restore the former {what}"
            )


def _compare(study: Run, chosen: Sequence[Contender], task: ValTask, seed: int) -> Document:
    """Compute the figures of a complete validation. Raises UserError."""
    records = study.records()
    trained = {contender.name: _trainings(records, contender) for contender in chosen}
    if not trained[WINNER]:
        failures = [record.failure for record in records if record.failure]
        said = f"; the last failure: {failures[-1].kind}, {failures[-1].message}" if failures else ""
        raise UserError(f"{study.folder.path} has no result for the winner{said}")
    if max(map(len, trained.values())) < 2:
        raise UserError(
            f"{study.folder.path} has no architecture with results for two seeds, so that the spread is unknown; "
            "validate with more --seeds in another --out"
        )
    matches = {
        name: [_checked_matches(task, study.folder.trial_folder(record.number)) for record in group]
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
        "evaluated_by": EVALUATED_BY,
        "architectures": rows,
        "comparisons": [asdict(pair) | {"sentence": sentence(pair)} for pair in found.differences],
    }


def _checked_matches(task: ValTask, folder: Path) -> Matches:
    """Return the matches of a training; their AP must equal that of both evaluators. Raises UserError."""
    matches, metrics = task.val_matches(folder), task.val_metrics(folder)
    ap, checked = matches.average_precision(), metrics["AP"]
    if checked is None:
        raise UserError("AP on val is undefined: COCO counts no object in its images; correct its annotations")
    if abs(ap - checked) > 1e-9:
        raise UserError(
            f"the detections in {folder} have an AP of {ap!r} by their matches and of {checked!r} by COCO's rules; "
            "no figure is printed, please report this as a bug"
        )
    return matches


def _trainings(records: Sequence[TrialRecord], contender: Contender) -> list[TrialRecord]:
    """Return the trainings of a contender that have a result."""
    key = network_key(contender.architecture)
    return [record for record in records if record.network_key == key and record.evaluation is not None]


def sentence(pair: Difference) -> str:
    """Describe the difference of two architectures in one sentence."""
    if pair.lower > 0 or pair.upper < 0:
        sign, where = (1, "above") if pair.lower > 0 else (-1, "below")
        value, low, high = sign * pair.value, *sorted((sign * pair.lower, sign * pair.upper))
        return f"{pair.first} is {value:.4f} AP {where} {pair.second} on val (95 %: {low:.4f} to {high:.4f})"
    return (
        f"no significant difference between {pair.first} and {pair.second} on val: {pair.value:+.4f} AP "
        f"(95 %: {pair.lower:+.4f} to {pair.upper:+.4f})"
    )
