"""Finds the architecture that a command names: of a trial, a published model, an exported file or a weights file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spinenas.proxy_task.config import HeadConfig, published_head
from spinenas.results.export.architecture_files import read_architecture
from spinenas.results.export.python_source import NetworkOptions
from spinenas.space.baseline import Architecture, architecture_from_text, genotype_of
from spinenas.space.cost import Cost, cost_by_part, retinanet_cost
from spinenas.space.errors import UserError, nearest
from spinenas.space.genotype import Genotype
from spinenas.space.graph import built_graph, dead_blocks
from spinenas.space.published import PUBLISHED, TEST_DEV, VAL, PublishedModel
from spinenas.space.scaling import BASELINE_SCALING, SCALINGS, Scaling

if TYPE_CHECKING:
    from spinenas.results.pictures.architecture import Subject
    from spinenas.results.record import TrialRecord
    from spinenas.search.run.run import Run

WEIGHTS_SUFFIX = ".safetensors"

AP_COLUMNS = {
    "ap_a": (VAL, "A"),
    "ap_b": (VAL, "B"),
    "ap_c": (VAL, "C"),
    "ap_mobile": (VAL, "mobile"),
    "ap_c_test_dev": (TEST_DEV, "C"),
}
"""Columns of published APs: the split and training protocol of each."""


@dataclass(frozen=True)
class ArchitectureArgument:
    """The architecture that the words of a command name.

    Attributes:
        name: the name of a published model, a file, or the run and number of a trial.
        architecture: the genotype or baseline.
        scaling: the scaling for a backbone of full width.
        detector: keyword arguments of `cost_by_part`, for the detector to count costs in.
        head: the head and anchors of that detector.
        options: activation, dialect and batch norm to build the network with.
        model: the published model, if it is one.
        weights: the weights file, if it was given as one.
        run, record: the run and the trial, if it was given as a trial.
    """

    name: str
    architecture: Architecture
    scaling: Scaling
    detector: Mapping[str, Any]
    head: HeadConfig = field(default_factory=HeadConfig)
    options: NetworkOptions = field(default_factory=NetworkOptions)
    model: PublishedModel | None = None
    weights: Path | None = None
    run: Run | None = None
    record: TrialRecord | None = None

    @property
    def genotype(self) -> Genotype:
        """The genotype. Raises UserError for a baseline."""
        return genotype_of(self.architecture, self.name)

    def describe(self) -> str:
        """Return one line with size, dead blocks, published figures and the result of a trial."""
        words = [f"key {self.architecture.key}", self.cost_words()]
        if isinstance(self.architecture, Genotype):
            words.append(f"dead blocks: {' '.join(map(str, dead_blocks(self.architecture))) or 'none'}")
        if self.model is not None:
            words.append(published_words(self.model))
        if self.record is not None:
            words.append(f"{self.record.status} ({self.record.origin})")
            if self.record.evaluation is not None:
                epoch = self.record.evaluation.stopped_after
                stopped = f" after epoch {epoch}, where it was stopped" if epoch else ""
                words.append(f"AP {self.record.evaluation.objective:.4f}{stopped}")
            if self.record.failure is not None:
                words.append(f"{self.record.failure.kind}: {self.record.failure.message}")
        return "; ".join(words)

    def cost_words(self) -> str:
        """Return parameters and multiply-adds of the detector."""
        cost = retinanet_cost(self.architecture, **self.detector)
        return (
            f"RetinaNet at scaling {self.detector['scaling'].name}, {self.detector['image_size']} px: "
            f"{cost.params / 1e6:.2f} M parameters, {cost.madds / 1e9:.2f} G multiply-adds"
        )

    def subject(self) -> Subject:
        """Return the subject of a picture. Raises UserError for a baseline."""
        from spinenas.results.pictures.architecture import Subject

        words = [self.cost_words()]
        if self.record is not None and self.record.evaluation is not None:
            words.append(f"AP {self.record.evaluation.objective:.4f}")
        return Subject(self.name, self.genotype, "; ".join(words))

    def block_rows(self) -> list[dict[str, Any]]:
        """Return one row for each node, and one for each other part of the detector."""
        costs = cost_by_part(self.architecture, **self.detector)
        rows: list[dict[str, Any]] = []
        if isinstance(self.architecture, Genotype):
            merged = {node.node: node.merged for node in built_graph(self.architecture).nodes}
            stem = [(block.level, block.kind, (), False) for block in self.architecture.stem]
            blocks = [(block.level, block.kind, block.parents, block.is_output) for block in self.architecture.blocks]
            for node, (level, kind, parents, is_output) in enumerate([*stem, *blocks]):
                row = {
                    "node": str(node),
                    "level": level,
                    "kind": str(kind),
                    "parents": " ".join(map(str, parents)) or None,
                    "merged": " ".join(map(str, merged.get(node, ()))) or None,
                    "role": "dead" if node not in merged else "output" if is_output else None,
                }
                rows.append(row | _cost_columns(costs.pop(f"node{node:02d}", None)))
        other = dict.fromkeys(("node", "level", "kind", "parents", "merged", "role"))
        return rows + [{**other, "node": part, **_cost_columns(cost)} for part, cost in costs.items()]


def _cost_columns(cost: Cost | None) -> dict[str, Any]:
    return {"params": cost and cost.params, "madds": cost and cost.madds}


def published_words(model: PublishedModel) -> str:
    """The published figures of a model, each with its source, and each AP with its protocol."""
    sizes = (("{} M parameters", model.params_millions), ("{} G multiply-adds", model.madds_billions))
    words = [text.format(figure) for text, figure in sizes if figure is not None]
    aps = [f"AP {ap.ap:.3f} on {ap.split} with protocol {ap.protocol} ({ap.source})" for ap in model.aps]
    if words:
        sizes_words = f"published: {', '.join(words)} ({model.source})"
    else:
        sizes_words = f"no parameter count or multiply-adds were published (architecture: {model.source})"
    return "; ".join([sizes_words, *aps])


def published_rows() -> list[dict[str, Any]]:
    """One row for each published model: our counts, the published figures, their ratios, and the baseline's.

    Each published AP stands in the column of its split and protocol.
    """
    rows = []
    for model in PUBLISHED.values():
        cost = model.cost()
        base = PUBLISHED[model.baseline].cost().madds if model.baseline else None
        aps = {(ap.split, ap.protocol): ap.ap for ap in model.aps}
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
                **{name: aps.get(key) for name, key in AP_COLUMNS.items()},
                "source": model.source,
                "ap_sources": [f"{ap.split} {ap.protocol}: {ap.source}" for ap in model.aps],
            }
        )
    return rows


def find_architecture(words: tuple[str, ...]) -> ArchitectureArgument:
    """Find the architecture that the words of a command name. Raises UserError."""
    if len(words) == 2:
        return _trial(*words)
    if len(words) != 1:
        raise click.UsageError("give RUN NUMBER, RUN best, the NAME of a published model, or a FILE")
    (word,) = words
    if word in PUBLISHED:
        model = PUBLISHED[word]
        head = published_head(model)
        return ArchitectureArgument(word, model.architecture, model.scaling, model.detector, head, model=model)
    if Path(word).is_dir():
        raise click.UsageError(f"{word} is a folder; give the number of a trial of this run after it, or best")
    if not Path(word).exists() and not word.endswith((".json", WEIGHTS_SUFFIX)):
        raise UserError(f"{word!r} is neither a file nor a published model{nearest(word, PUBLISHED)}")
    if word.endswith(WEIGHTS_SUFFIX):
        return _weights(Path(word))
    genotype, scaling = read_architecture(Path(word))
    scaling = scaling or SCALINGS["49"]
    return ArchitectureArgument(word, genotype, scaling, {"scaling": scaling, "image_size": 640})


def _weights(path: Path) -> ArchitectureArgument:
    from spinenas.proxy_task.weights.weights_file import read_spec  # torch

    spec = read_spec(path)
    detector = {
        "scaling": spec.scaling,
        "image_size": spec.image_size_pixels,
        "class_channels": len(spec.category_ids) + 1,
        **spec.head.as_cost_arguments(),
    }
    return ArchitectureArgument(
        str(path),
        architecture_from_text(spec.architecture),
        spec.scaling,
        detector,
        spec.head,
        NetworkOptions(spec.dialect, spec.activation, spec.bn_momentum, spec.bn_eps),
        model=next((model for model in PUBLISHED.values() if spec.is_of(model)), None),
        weights=path,
    )


def _trial(folder: str, number: str) -> ArchitectureArgument:
    """Find a trial of a run by its number, or the best one. Raises UserError."""
    from spinenas.search.config.loading import stored_config
    from spinenas.search.run.run import Run

    run = Run.open(folder)
    records = run.records()
    if number == "best":
        if (best := run.winner()) is None:
            raise UserError(f"{folder} has no best trial; {run.no_winner()}; or name a trial by its number")
        record = best
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
    return ArchitectureArgument(
        f"{folder} {record.number}",
        architecture,
        scaling,
        detector,
        task.head,
        NetworkOptions(task.dialect, task.train.activation, bn_eps=task.train.bn_eps),
        run=run,
        record=record,
    )
