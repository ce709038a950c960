"""`spinenas replay`: trains one architecture as a search does, and also measures it on val."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spinenas.proxy_task.config import BUILT_IN
from spinenas.search.cli.options import (
    architecture_argument,
    check_overrides,
    configuration,
    data_option,
    format_options,
    note,
    overrides_of,
    overrides_option,
    path_option,
    seed_option,
    watched,
)
from spinenas.search.cli.table import print_rows
from spinenas.search.run.val_task import EVALUATED_BY

if TYPE_CHECKING:
    from spinenas.proxy_task.config import TaskConfig
    from spinenas.search.cli.architecture_argument import ArchitectureArgument


@click.command()
@architecture_argument
@click.option(
    "--preset",
    "source",
    metavar="PRESET|FILE.toml",
    help="Configuration of the task; default: that of the run, else quickstart.",
)
@data_option
@path_option("--out", "Folder of the replay, new or begun.", metavar="PATH", required=True)
@seed_option
@click.option(
    "--width",
    type=click.Choice(["proxy", "full"]),
    default="proxy",
    show_default=True,
    help="Scaling of the task, or of the architecture itself; the head is always the task's.",
)
@click.option("--address", help='Ray cluster: its address, "auto" to find one, or "local" for none.')
@overrides_option
@format_options
def replay(
    architecture: tuple[str, ...], source: str | None, out: Path, width: str, format: str | None, **options: Any
) -> None:
    """Train one architecture as a search does, and also measure it on val.

    The same command resumes a replay that was stopped; once it is complete, the command prints its figures again. A
    weights file (FILE.safetensors) is not trained, but measured on val at its own size.
    """
    from spinenas.search.cli.architecture_argument import find_architecture

    found = find_architecture(architecture)
    if found.weights is not None:
        if source is not None or options["seed"] is not None or options["address"] is not None or width != "proxy":
            raise click.UsageError("a weights file is not trained; leave out --preset, --seed, --width and --address")
        _replay_weights(found, out, options, format)
        return
    if found.backbone_weights is not None:
        note(f"{found.name} has no head; its architecture is trained from scratch, and its weights are not used")
    if source is None and found.run is not None:
        source = str(found.run.folder.path / "config.json")
    overrides = overrides_of(options)
    if width == "full":
        overrides["task.scaling"] = asdict(found.scaling)
    config, config_toml = configuration(source or "quickstart", overrides)
    from spinenas.search.monitoring.display import display_for
    from spinenas.search.studies.replay import replay as replay_architecture

    with watched(lambda: "resume it with the same command"):
        run, val = replay_architecture(
            found.architecture,
            config,
            name=found.name,
            out=out,
            display=display_for(sys.stderr),
            config_toml=config_toml,
        )
    evaluation = run.records()[0].evaluation
    assert evaluation is not None, "a replay without a result raises"
    rows = [
        {"metric": name, "reward": evaluation.metrics.get(name), "val": val.get(name)}
        for name in val | evaluation.metrics
    ]
    print_rows(rows, format, {"reward": "figure", "val": "figure"})
    note(
        "reward: measured on held-out training images, as in a search; val: measured on the val images of the data, "
        f"by {EVALUATED_BY}"
    )
    weights = run.folder.trial_folder(0) / "weights.safetensors"
    if weights.exists():
        note(f"the trained weights are in {weights}")
    _print_trained(found, config.task, evaluation.params)


def _replay_weights(found: ArchitectureArgument, out: Path, options: dict[str, Any], format: str | None) -> None:
    """Measure a weights file on val, and print the figures beside the published APs of its activation."""
    rule = "a weights file is not trained, so only task.eval and task.data have an effect"
    check_overrides(options["overrides"], rule, "task.eval.", "task.data.")
    config, _ = configuration("quickstart", {"task.eval.pre_nms_top": 5000} | overrides_of(options))
    from spinenas.proxy_task.weights.weights_file import read_spec
    from spinenas.search.studies.replay import replay_weights

    assert found.weights is not None
    metrics = replay_weights(found.weights, config.task, out=out)
    aps = found.model.aps_with(read_spec(found.weights).activation) if found.model else {}
    published = {f"published, protocol {protocol}": ap for protocol, ap in aps.items()}
    rows = [
        {"metric": name, "val": value} | {column: ap if name == "AP" else None for column, ap in published.items()}
        for name, value in metrics.items()
    ]
    print_rows(rows, format, {"val": "figure"} | dict.fromkeys(published, "figure"))
    note(f"figures on val are by {EVALUATED_BY}")
    if found.model is not None:
        from spinenas.search.cli.published_table import published_words

        note(f"{found.model.name}, {published_words(found.model)}")


def _print_trained(found: ArchitectureArgument, task: TaskConfig, params: int | None) -> None:
    """Print what was trained. The published figures of a model belong to another training, and are not printed."""
    data = task.data.folder or task.data.train_annotations
    facts = (
        f"scaling {task.scaling.name}",
        f"{params / 1e6:.2f} M parameters" if params is not None else "",
        f"{task.image_size_pixels} px",
        f"{task.train.epochs} epoch{'s' * (task.train.epochs != 1)}",
        "generated images" if data == BUILT_IN else f"data {data}",
    )
    note(f"trained here: {', '.join(filter(None, facts))}")
    if found.model is not None:
        note(
            f"the published figures of {found.model.name} (full size, COCO) are not comparable; "
            f"`spinenas show {found.model.name}` prints them"
        )
