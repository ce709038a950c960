"""What a command was pointed at: a trial of a run, a published model, an exported file or a weights file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spinenas.results.export.architecture_files import read_architecture
from spinenas.results.leaderboard import winner
from spinenas.space.baseline import Architecture, architecture_from_text, genotype_of
from spinenas.space.cost import Cost, cost_by_part, retinanet_cost
from spinenas.space.errors import UserError, nearest
from spinenas.space.genotype import Genotype
from spinenas.space.graph import built_graph, dead_blocks
from spinenas.space.published import PUBLISHED, PublishedModel
from spinenas.space.scaling import BASELINE_SCALING, SCALINGS, Scaling

if TYPE_CHECKING:
    from spinenas.results.pictures.architecture import Subject
    from spinenas.results.record import TrialRecord
    from spinenas.search.run.run import Run

WEIGHTS_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Target:
    """What the words of a command stand for.

    Attributes:
        name: a published name, a file, or the run and number of a trial.
        architecture: its genotype, or the baseline it is.
        scaling: what it is meant to be built with at full width.
        detector: keyword arguments of `cost_by_part`: the detector its costs are shown for.
        model: the published model that it is, if it is one.
        weights: the file of its weights, if it was given as one.
        run, record: where it is from, if from a run.
    """

    name: str
    architecture: Architecture
    scaling: Scaling
    detector: Mapping[str, Any]
    model: PublishedModel | None = None
    weights: Path | None = None
    run: Run | None = None
    record: TrialRecord | None = None

    @property
    def genotype(self) -> Genotype:
        """Its blocks. Raises UserError for a baseline."""
        return genotype_of(self.architecture, self.name)

    def describe(self) -> str:
        """One line: size, dead blocks, what is published, and the result if it is a trial's."""
        words = [f"key {self.architecture.key}", self.cost_words()]
        if isinstance(self.architecture, Genotype):
            words.append(f"dead blocks: {' '.join(map(str, dead_blocks(self.architecture))) or 'none'}")
        if self.model is not None:
            words.append(published_words(self.model))
        if self.record is not None:
            words.append(f"{self.record.status} ({self.record.origin})")
            if self.record.evaluation is not None:
                epoch = self.record.evaluation.stopped_after
                words.append(
                    f"AP {self.record.evaluation.objective:.4f}"
                    + (f" after epoch {epoch}, where it stopped" if epoch else "")
                )
            if self.record.failure is not None:
                words.append(f"{self.record.failure.kind}: {self.record.failure.message}")
        return "; ".join(words)

    def cost_words(self) -> str:
        """Parameters and multiply-adds of its detector."""
        cost = retinanet_cost(self.architecture, **self.detector)
        return (
            f"RetinaNet at scaling {self.detector['scaling'].name}, {self.detector['image_size']} px: "
            f"{cost.params / 1e6:.2f} M parameters, {cost.madds / 1e9:.2f} G multiply-adds"
        )

    def subject(self) -> Subject:
        """What a picture of it shows. Raises UserError for a baseline."""
        from spinenas.results.pictures.architecture import Subject

        words = [self.cost_words()]
        if self.record is not None and self.record.evaluation is not None:
            words.append(f"AP {self.record.evaluation.objective:.4f}")
        return Subject(self.name, self.genotype, "; ".join(words))

    def block_rows(self) -> list[dict[str, Any]]:
        """One row for each node, and for what stands around them."""
        costs = cost_by_part(self.architecture, **self.detector)
        rows = []
        if isinstance(self.architecture, Genotype):
            built = {node.node: node for node in built_graph(self.architecture).nodes}
            stem = [(block.level, block.kind, (), False) for block in self.architecture.stem]
            blocks = [(block.level, block.kind, block.parents, block.is_output) for block in self.architecture.blocks]
            for node, (level, kind, parents, is_output) in enumerate([*stem, *blocks]):
                merged = built[node].merged if node in built else ()
                rows.append(
                    _row(f"{node}", costs.pop(f"node{node:02d}", None))
                    | {
                        "level": level,
                        "kind": str(kind),
                        "parents": " ".join(map(str, parents)) or None,
                        "merged": " ".join(map(str, merged)) or None,
                        "role": "dead" if node not in built else "output" if is_output else None,
                    }
                )
        return rows + [_row(part, cost) for part, cost in costs.items()]


def _row(node: str, cost: Cost | None) -> dict[str, Any]:
    return {
        "node": node,
        "level": None,
        "kind": None,
        "parents": None,
        "merged": None,
        "role": None,
        "params": cost and cost.params,
        "madds": cost and cost.madds,
    }


def published_words(model: PublishedModel) -> str:
    """What is published of a model, and from where."""
    figures = (
        ("{:g} M parameters", model.params_millions),
        ("{:g} G multiply-adds", model.madds_billions),
        ("AP {:g} on val2017", model.ap),
        ("{:g} on test-dev", model.ap_test_dev),
    )
    words = [text.format(figure) for text, figure in figures if figure is not None]
    return f"published: {', '.join(words) or 'no figures'} ({model.source})"


def published_rows() -> list[dict[str, Any]]:
    """One row for each published model: our counts, the published figures, their ratios, and the baseline's."""
    rows = []
    for model in PUBLISHED.values():
        cost = model.cost()
        base = PUBLISHED[model.baseline].cost().madds if model.baseline else None
        rows.append(
            {
                "name": model.name,
                "pixels": model.image_size_pixels,
                "params": cost.params,
                "published_params": model.params_millions and round(model.params_millions * 1e6),
                "params_ratio": model.params_millions and cost.params / (model.params_millions * 1e6),
                "madds": cost.madds,
                "published_madds": model.madds_billions and round(model.madds_billions * 1e9),
                "madds_ratio": model.madds_billions and cost.madds / (model.madds_billions * 1e9),
                "baseline": model.baseline,
                "baseline_ratio": base and cost.madds / base,
                "published_ap": model.ap,
                "published_ap_test_dev": model.ap_test_dev,
                "source": model.source,
            }
        )
    return rows


def find_target(words: tuple[str, ...]) -> Target:
    """Find what the words of a command stand for. Raises UserError."""
    if len(words) == 2:
        return _trial(*words)
    if len(words) != 1:
        raise click.UsageError("give RUN NUMBER, RUN best, the NAME of a published model, or a FILE")
    (word,) = words
    if word in PUBLISHED:
        model = PUBLISHED[word]
        return Target(word, model.architecture, model.scaling, model.detector, model=model)
    if Path(word).is_dir():
        raise click.UsageError(f"{word} is a folder; give the number of a trial of this run after it, or best")
    if not Path(word).exists() and not word.endswith((".json", WEIGHTS_SUFFIX)):
        raise UserError(f"{word!r} is neither a file nor a published model{nearest(word, PUBLISHED)}")
    if word.endswith(WEIGHTS_SUFFIX):
        return _weights(Path(word))
    genotype, scaling = read_architecture(Path(word))
    scaling = scaling or SCALINGS["49"]
    return Target(word, genotype, scaling, {"scaling": scaling, "image_size": 640})


def _weights(path: Path) -> Target:
    from spinenas.proxy_task.weights.weights_file import read_spec  # torch

    spec = read_spec(path)
    detector = {
        "scaling": spec.scaling,
        "image_size": spec.image_size_pixels,
        "class_channels": len(spec.category_ids) + 1,
        **spec.head.as_cost_arguments(),
    }
    model = next((model for model in PUBLISHED.values() if spec.is_of(model)), None)
    return Target(
        str(path), architecture_from_text(spec.architecture), spec.scaling, detector, model=model, weights=path
    )


def _trial(folder: str, number: str) -> Target:
    """Find a trial of a run by its number, or the best one. Raises UserError."""
    from spinenas.search.config.loading import stored_config
    from spinenas.search.run.run import Run

    run = Run.open(folder)
    records = run.records()
    if number == "best":
        row = winner(records, run.scalarized_objective())
        if row is None:
            raise UserError(f"{folder} has no complete trial yet; wait for one, or resume the run")
        record = records[row["number"]]
    elif number.isdecimal() and int(number) < len(records):
        record = records[int(number)]
    else:
        known = f"its trials are 0 to {len(records) - 1}" if records else "it has none yet"
        raise UserError(f"{folder} has no trial {number!r}; {known}, or say best")
    task = stored_config(run.folder.config()).task
    categories = run.folder.run_info()["data"].get("categories", range(90))
    detector = {
        "scaling": record.fidelity.scaling if record.fidelity else task.scaling,
        "image_size": task.image_size_pixels,
        "class_channels": len(categories) + 1,
        **task.head.as_cost_arguments(),
    }
    architecture = record.genotype or architecture_from_text(record.architecture)
    scaling = SCALINGS["49"] if record.genotype else BASELINE_SCALING
    return Target(f"{folder} {record.number}", architecture, scaling, detector, run=run, record=record)
