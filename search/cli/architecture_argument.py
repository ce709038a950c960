"""Finds the architecture that a command names: of a trial, a published model, an exported file or a weights file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spinenas.results.export.architecture_files import read_file
from spinenas.results.export.description import ExportDescription, NetworkOptions, Weights, spinenas_version
from spinenas.results.export.mmdetection import BACKBONE_MODULE
from spinenas.results.record import Status
from spinenas.search.cli.published_table import published_words
from spinenas.space.baseline import Architecture, architecture_from_text, genotype_of
from spinenas.space.cost import Cost, cost_by_part, retinanet_cost
from spinenas.space.errors import UserError, nearest
from spinenas.space.genotype import Genotype
from spinenas.space.graph import built_graph, dead_blocks
from spinenas.space.head import HeadConfig, published_head
from spinenas.space.published import PUBLISHED, PublishedModel
from spinenas.space.scaling import BASELINE_SCALING, Scaling, usual_scaling

if TYPE_CHECKING:
    from spinenas.results.pictures.architecture import Subject
    from spinenas.results.record import TrialRecord
    from spinenas.search.run.run import Run

WEIGHTS_SUFFIX, ONNX_SUFFIX = ".safetensors", ".onnx"


@dataclass(frozen=True)
class ArchitectureArgument:
    """The architecture that the words of a command name.

    Attributes:
        name: the name of a published model, a file, or the run and number of a trial.
        architecture: the genotype or baseline.
        scaling: the scaling for a backbone of full width.
        detector: keyword arguments of `cost_by_part`, for the detector to count costs in.
        head: the head and anchors of that detector.
        options: activation, dialect and batch norm to build the network with; None if the file names none.
        model: the published model, if it is one.
        weights: the weights file of the detector, if it was given as one.
        backbone_weights: the file with the weights of the backbone alone, if it was given as one.
        description: the description in the file, if it is an export or a weights file.
        names_scaling: whether the scaling is that of the file, not assumed.
        run, record: the run and the trial, if it was given as a trial.
        predicted: the final AP of a network without a complete training in words, if it can be predicted.
    """

    name: str
    architecture: Architecture
    scaling: Scaling
    detector: Mapping[str, Any]
    head: HeadConfig = field(default_factory=HeadConfig)
    options: NetworkOptions | None = field(default_factory=NetworkOptions)
    model: PublishedModel | None = None
    weights: Path | None = None
    backbone_weights: Path | None = None
    description: ExportDescription | None = None
    names_scaling: bool = True
    run: Run | None = None
    record: TrialRecord | None = None
    predicted: str | None = None

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
                stopped_by = "stopped" if self.record.status is Status.PRUNED else "paused"
                stopped = f" after epoch {epoch}, where it was {stopped_by}" if epoch else ""
                words.append(f"AP {self.record.evaluation.objective:.4f}{stopped}")
            if self.predicted is not None:
                words.append(f"predicted final AP {self.predicted}")
            if self.record.failure is not None:
                words.append(f"{self.record.failure.kind}: {self.record.failure.message}")
        if self.description is not None and self.weights is None:
            words.append(description_words(self.description))
        return "; ".join(words)

    def described(self, scaling: Scaling, options: NetworkOptions | None, weights: Weights) -> ExportDescription:
        """Return the description for an export. It names the source of the file that was given, if that has one."""
        if self.description is not None:
            description = self.description
        elif self.run is not None and self.record is not None:
            run, trial = str(self.run.folder.path), self.record.number
            description = ExportDescription(self.name, self.architecture, scaling, run=run, trial=trial)
        else:
            description = ExportDescription(self.name, self.architecture, scaling)
        return replace(description, scaling=scaling, options=options, weights=weights, version=spinenas_version())

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
            epoch = self.record.evaluation.stopped_after
            words.append(f"AP {self.record.evaluation.objective:.4f}" + (f" after epoch {epoch}" if epoch else ""))
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


def description_words(description: ExportDescription) -> str:
    """Where an exported file comes from, and what its weights are."""
    weights = {"none": "no weights", "random": "random weights, not trained", "trained": "trained weights"}
    options = "activation and dialect unknown"
    if description.options is not None:
        options = f"{description.options.activation}, dialect {description.options.dialect}"
    return (
        f"exported by spinenas {description.version} from {description.source} ({options}, "
        f"{weights[description.weights]})"
    )


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
    if Path(word).is_dir() and not (Path(word) / f"{BACKBONE_MODULE}.py").exists():
        raise click.UsageError(f"{word} is a folder; give the number of a trial of this run after it, or best")
    if not Path(word).exists() and not word.endswith((".json", WEIGHTS_SUFFIX)):
        raise UserError(f"{word!r} is neither a file nor a published model{nearest(word, PUBLISHED)}")
    return architecture_in(Path(word))


def architecture_in(path: Path) -> ArchitectureArgument:
    """Read the architecture of any file that `export`, `convert` or `replay` writes, or of a table. Raises UserError.

    Args:
        path: the file, or the folder of an export for MMDetection.
    """
    name = str(path)
    if path.is_dir():
        path = path / f"{BACKBONE_MODULE}.py"
    if path.suffix == WEIGHTS_SUFFIX:
        from spinenas.proxy_task.weights.backbone_files import is_backbone_file, read_backbone_description  # torch

        if not is_backbone_file(path):
            return _weights(path)
        return replace(_described(name, read_backbone_description(path)), backbone_weights=path)
    if path.suffix == ONNX_SUFFIX:
        from spinenas.proxy_task.weights.backbone_files import read_onnx_description  # torch

        return _described(name, read_onnx_description(path))
    content = read_file(path)
    if content.description is not None:
        return _described(name, content.description)
    scaling = content.scaling or usual_scaling(content.genotype)
    detector = {"scaling": scaling, "image_size": 640}
    names_scaling = content.scaling is not None
    return ArchitectureArgument(name, content.genotype, scaling, detector, options=None, names_scaling=names_scaling)


def _described(name: str, description: ExportDescription) -> ArchitectureArgument:
    detector = {"scaling": description.scaling, "image_size": 640}
    return ArchitectureArgument(
        name,
        description.architecture,
        description.scaling,
        detector,
        options=description.options,
        description=description,
    )


def _weights(path: Path) -> ArchitectureArgument:
    from spinenas.proxy_task.weights.weights_file import read_spec  # torch

    spec = read_spec(path)
    detector = {
        "scaling": spec.scaling,
        "image_size": spec.image_size_pixels,
        "class_channels": len(spec.category_ids) + 1,
        **spec.head.as_cost_arguments(),
    }
    options = NetworkOptions(spec.dialect, spec.activation, spec.bn_momentum, spec.bn_eps)
    architecture = architecture_from_text(spec.architecture)
    run, trial = _trial_of(path)
    return ArchitectureArgument(
        str(path),
        architecture,
        spec.scaling,
        detector,
        spec.head,
        options,
        model=next((model for model in PUBLISHED.values() if spec.is_of(model)), None),
        weights=path,
        description=ExportDescription(spec.name, architecture, spec.scaling, options, "trained", run, trial),
    )


def _trial_of(path: Path) -> tuple[str | None, int | None]:
    """Return the run and the trial whose folder a weights file is in, if it is in one."""
    folder = path.absolute().parent
    run = folder.parent.parent
    if folder.parent.name == "trials" and folder.name.isdecimal() and (run / "journal.jsonl").exists():
        return str(run), int(folder.name)
    return None, None


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
    scaling = usual_scaling(record.genotype) if record.genotype else BASELINE_SCALING
    return ArchitectureArgument(
        f"{folder} {record.number}",
        architecture,
        scaling,
        detector,
        task.head,
        NetworkOptions(task.dialect, task.train.activation, bn_eps=task.train.bn_eps),
        run=run,
        record=record,
        predicted=_predicted(records, record),
    )


def _predicted(records: Sequence[TrialRecord], record: TrialRecord) -> str | None:
    """Return the final AP that is predicted for the network of a trial, if no training of it is complete."""
    if record.evaluation is None or record.evaluation.stopped_after is None:
        return None
    from spinenas.results.leaderboard import leaderboard_rows  # numpy, for such runs

    row = next(row for row in leaderboard_rows(records) if record.number in row["numbers"])
    return None if row["predicted"] is None else f"{row['predicted']:.4f} ± {row['predicted_std']:.4f}"
