"""Options and helpers that several commands share."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from spinenas.controller.former_names import table_name
from spinenas.controller.registry import CONTROLLERS
from spinenas.search.config.amount import amount
from spinenas.search.config.document import NONE, parse_override, toml_text, with_overrides
from spinenas.search.executors.raw_output import separate_stderr
from spinenas.search.executors.stop_signals import Terminated, interrupted_in_order
from spinenas.space.errors import UserError

if TYPE_CHECKING:
    from spinenas.search.config.config import SearchConfig

Command = TypeVar("Command", bound=Callable[..., Any])

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 plus the number of the signal, as in shells."""


class CommandGroup(click.Group):
    """A group that lists its commands in the order in which they were added."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


def options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Combine several options into one decorator."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


PATH = click.Path(path_type=Path)


def path_option(name: str, help: str, *, metavar: str = "FILE", required: bool = False) -> Callable[[Command], Command]:
    """Return an option that takes a path."""
    return click.option(name, type=PATH, metavar=metavar, required=required, help=help)


class _WholeNumber(click.IntRange):
    """A whole number; click would call any other text no valid integer range."""

    name = "whole number"


def number_option(*names: str, help: str, least: int = 1, default: int | None = None) -> Callable[[Command], Command]:
    """Return an option that takes a whole number, `least` or more."""
    return click.option(
        *names, type=_WholeNumber(min=least), default=default, show_default=True, metavar="N", help=help
    )


source_argument = click.argument("source", metavar="PRESET|FILE|RUN")
run_argument = click.argument("run", type=PATH)
architecture_argument = click.argument("architecture", metavar="RUN NUMBER|RUN best|NAME|FILE", nargs=-1)
trials_option = number_option("--trials", "num_trials", help="Number of trainings in total.")
epochs_option = number_option(
    "--epochs",
    "num_epochs",
    help="Epochs of all trainings in total, instead of --trials.",
)
workers_option = number_option("--workers", help="Trainings at the same time.")
force_option = click.option("--force", is_flag=True, help="Replace an existing file.")
data_option = path_option(
    "--data",
    'Data set folder in a known layout, one annotation file, or "built-in" for generated images.',
    metavar="FOLDER",
)
seed_option = click.option("--seed", type=int, metavar="N", help="Seed of every random decision.")
address_option = click.option("--address", help='Address of a running Ray cluster, or "auto" to find one.')
hours_option = click.option(
    "--max-accelerator-hours",
    type=float,
    metavar="HOURS",
    help="Stop starting trials that would exceed this many hours of accelerators in total. A worker on CPUs counts as "
    "one.",
)
overrides_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a configuration key, such as task.train.epochs=8; repeatable.",
)
format_options = options(
    click.option("--json", "format", flag_value="json", help="Print JSON with every value in full."),
    click.option("--csv", "format", flag_value="csv", help="Print CSV with every value in full."),
)
plot_options = options(
    path_option("--plot", "Also draw a plot: FILE.svg or .png."),
    click.option("--force", is_flag=True, help="Replace an existing picture."),
)


def _amount(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    try:
        return None if text is None else amount(text)
    except UserError as error:
        raise click.BadParameter(str(error)) from None


search_options = options(
    data_option,
    trials_option,
    epochs_option,
    workers_option,
    seed_option,
    click.option(
        "--controller",
        metavar="NAME",
        help=f"Search algorithm: {', '.join(name for name in CONTROLLERS if name != 'plan')}. "
        "`spinenas controllers` describes them.",
    ),
    click.option(
        "--prior",
        metavar="digits|none|PATH",
        help="Trainings of another task that the predictor begins with: of the package, or a table or run.",
    ),
    click.option(
        "--objective",
        type=click.Choice(["ap", "soft", "front"]),
        help="Maximize AP (default), AP weighted by cost (soft), or the Pareto front of AP and cost.",
    ),
    click.option("--max-madds", callback=_amount, metavar="N", help="Limit of multiply-adds, such as 60G."),
    click.option("--max-params", callback=_amount, metavar="N", help="Limit of parameters, such as 28.5M."),
    click.option(
        "--target",
        metavar="SCALING@PIXELS",
        help="Detector to count costs in, such as 49@640. The default is the detector that trials train.",
    ),
    hours_option,
    address_option,
    click.option("--mirror", metavar="URI", help="Second place to keep the run, such as s3://bucket/run."),
    overrides_option,
)
"""Options that set configuration keys, of the commands that start or describe a search."""

PRIOR = "controller.prior"
"""Stands for the key `prior` in the options of the chosen controller."""

_KEYS = {
    "num_trials": "budget.num_trials",
    "num_epochs": "budget.epochs",
    "workers": "executor.workers",
    "seed": "seed",
    "controller": "controller.name",
    "prior": PRIOR,
    "objective": "objective.kind",
    "max_madds": "constraints.max_madds",
    "max_params": "constraints.max_params",
    "target": "constraints.target",
    "max_accelerator_hours": "budget.max_accelerator_hours",
    "address": "executor.address",
    "mirror": "storage.mirror",
}
"""The configuration key that each of these options sets."""


def overrides_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by dotted key for the options of a command.

    An option of its own wins over --set. The option --data replaces every path to data in the configuration. Raises
    UserError where --set names such a path as well, or where a text is not Unicode.
    """
    from spinenas.proxy_task.config import BUILT_IN
    from spinenas.proxy_task.data.annotation_files.layout import is_coco_file, split_of_file

    overrides = dict(map(parse_override, options.get("overrides", ())))
    overrides |= {key: options[name] for name, key in _KEYS.items() if options.get(name) is not None}
    data = options.get("data")
    if data is not None:
        files = ("train_annotations", "train_images", "val_annotations", "val_images")
        given = [name for name in files if f"task.data.{name}" in overrides]
        if given:
            raise UserError(f"--data and --set task.data.{given[0]} both name the data; give one of them")
        overrides |= {f"task.data.{name}": None for name in files}
        if is_coco_file(data):
            split = split_of_file(data.absolute())
            overrides["task.data.folder"] = ""
            overrides |= {
                "task.data.train_annotations": str(split.annotations),
                "task.data.train_images": str(split.images),
            }
        else:
            overrides["task.data.folder"] = BUILT_IN if str(data) == BUILT_IN else str(data.absolute())
    for key, value in overrides.items():
        _check_text(key, value)
    return overrides


def _check_text(key: str, value: Any) -> None:
    """Raise UserError for a text with bytes that this locale cannot decode, which no configuration file can hold."""
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{key} is {value!a}, which is no text in the encoding {sys.getfilesystemencoding()} of this locale; "
                "set LC_ALL=C.UTF-8, or rename the file or folder"
            ) from error


def check_plot(plot: Path | None, force: bool) -> None:
    """Raise UserError if a plot cannot be written, before anything is computed for it."""
    from spinenas.results.pictures.picture_file import check_picture_path

    if plot is not None:
        check_picture_path(plot, force=force)
    elif force:
        raise click.UsageError("--force replaces the picture of --plot; give both")


def write_plot(svg: str, plot: Path, force: bool) -> None:
    """Write a plot, and print where. Raises UserError."""
    from spinenas.results.pictures.picture_file import write_picture

    write_picture(svg, plot, force=force)
    note(f"wrote the plot to {plot}")


def with_prior_key(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Replace PRIOR in the overrides of a document by the key of the chosen controller. Raises UserError."""
    from spinenas.search.config.loading import load_config

    others = {key: value for key, value in overrides.items() if key != PRIOR}
    if PRIOR not in overrides:
        return others
    name = load_config(document, others).controller.name
    if not CONTROLLERS[name].takes_prior:
        raise UserError(f"the controller {name} has no predictor that a prior could teach; leave out --prior")
    prior = None if overrides[PRIOR] == NONE else overrides[PRIOR]
    return {**others, f"controller.{table_name(name)}.prior": prior}


def configuration(source: str, overrides: Mapping[str, Any]) -> tuple[SearchConfig, str]:
    """Return a configuration, and the TOML text that gives it. Raises UserError.

    Args:
        source: a preset, a TOML file, a run, or the config.json of a run.
        overrides: values by dotted key; they win over the source.
    """
    from spinenas.search.config.loading import load_config, read_source, with_one_budget

    text, document = read_source(source)
    overrides = with_prior_key(document, overrides)
    config = load_config(document, overrides)
    if text is None:
        return config, toml_text(with_overrides(with_one_budget(document, overrides), overrides))
    if overrides:  # the file is kept as it is, for its comments
        said = toml_text(overrides).splitlines()
        text = "\n".join([text.rstrip(), "# Overridden on the command line:", *(f"# {line}" for line in said), ""])
    return config, text


def check_data_is_here(source: str, config: SearchConfig) -> None:
    """Raise UserError if the data of a run lie elsewhere now, for a command that takes --data."""
    from spinenas.search.run.continuation import missing_data

    if (Path(source) / "journal.jsonl").exists() and (missing := missing_data(config.task.data)) is not None:
        raise UserError(
            f"{missing}, the data of {source}, does not exist here; add --data FOLDER, where the data lie now"
        )


def resume_advice(folder: Path) -> Callable[[], str]:
    """Return a function that says how to continue a stopped search, or that nothing was started."""

    def advice() -> str:
        journal = folder / "journal.jsonl"
        if journal.exists() and journal.stat().st_size:
            return f"resume it with: spinenas resume {shlex.quote(str(folder))}"
        return "nothing was started yet, so repeat the command"

    return advice


@contextmanager
def watched(advice: Callable[[], str], *, waits_for: str = "the workers to end") -> Iterator[None]:
    """Keep stdout for results. On Ctrl-C, SIGTERM or SIGHUP, print the advice and exit.

    Args:
        advice: says how to continue.
        waits_for: what may take some seconds after Ctrl-C; a second Ctrl-C does not wait for it.
    """

    def on_first() -> None:
        note(f"stopping: waiting for {waits_for}; press Ctrl-C again to end at once")

    def on_second() -> None:
        note(f"ended at once; {advice()}")

    try:
        # Ray prints messages of its daemons on stdout.
        with interrupted_in_order(on_first, on_second), separate_stderr(), redirect_stdout(sys.stderr):
            yield
    except KeyboardInterrupt:
        note(f"stopped; {advice()}")
        raise SystemExit(INTERRUPTED) from None
    except Terminated as reason:
        note(f"stopped by {reason.signal.name}; {advice()}")
        raise SystemExit(128 + reason.signal) from None


def note(text: str) -> None:
    """Print a line on stderr."""
    click.echo(text, err=True)


def check_overrides(overrides: tuple[str, ...], rule: str, *allowed: str) -> None:
    """Raise UsageError with the rule for a --set whose key begins with none of the allowed words."""
    for text in overrides:
        if not text.startswith(allowed):
            raise click.UsageError(f"{rule}; leave out {text}")
