"""What the commands share: options, reading a configuration, stopping in order, printing rows."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from spinenas.search.config.amount import amount
from spinenas.search.executors.stop_signals import Terminated
from spinenas.space.errors import UserError

if TYPE_CHECKING:
    from spinenas.search.config.config import SearchConfig
    from spinenas.search.run.run import Run

Command = TypeVar("Command", bound=Callable[..., Any])

INTERRUPTED, TERMINATED = 130, 143
"""Exit statuses after Ctrl-C and SIGTERM, as shells have them: 128 + the signal's number."""


def options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


data_option = click.option(
    "--data", type=click.Path(path_type=Path), help="Data set folder in either COCO layout, or built-in."
)
seed_option = click.option("--seed", type=int, help="What every random decision is derived from.")
overrides_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override any configuration key; repeatable."
)
out_option = click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the new run.")
format_options = options(
    click.option("--json", "format", flag_value="json", help="Print JSON."),
    click.option("--csv", "format", flag_value="csv", help="Print CSV."),
)
plot_options = options(
    click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw it as well: FILE.svg or .png."),
    click.option("--force", is_flag=True, help="Replace an existing picture."),
)
run_argument = click.argument("run", type=click.Path(path_type=Path))
target_argument = click.argument("target", metavar="RUN NUMBER | RUN best | NAME | FILE", nargs=-1)


def check_plot(plot: Path | None, force: bool) -> None:
    """Refuse a plot that cannot be written before anything is worked out for it. Raises UserError."""
    from spinenas.results.pictures.picture_file import check_picture_path

    if plot is not None:
        check_picture_path(plot, force=force)
    elif force:
        raise click.UsageError("--force is about a picture; name its file with --plot")


def write_plot(svg: str, plot: Path, force: bool) -> None:
    """Write a plot, and say where. Raises UserError."""
    from spinenas.results.pictures.picture_file import write_picture

    write_picture(svg, plot, force=force)
    click.echo(f"drew it in {plot}", err=True)


def _amount(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    try:
        return None if text is None else amount(text)
    except UserError as error:
        raise click.BadParameter(str(error)) from None


constraint_options = options(
    click.option("--max-madds", callback=_amount, metavar="N", help="Multiply-adds at most, such as 60G."),
    click.option("--max-params", callback=_amount, metavar="N", help="Parameters at most, such as 28.5M."),
    click.option("--target", metavar="49@640", help="Scaling and pixels to count these at; default: the task's own."),
)


def constraint_settings(max_madds: float | None, max_params: float | None, target: str | None) -> dict[str, Any]:
    """What the constraint options stand for."""
    return {
        "constraints.max_madds": max_madds,
        "constraints.max_params": max_params,
        "constraints.target": target,
    }


def configuration(source: str, settings: Mapping[str, Any], overrides: tuple[str, ...]) -> tuple[SearchConfig, str]:
    """Read a configuration, and say in TOML how it was given. Raises UserError.

    Args:
        source: a preset, a TOML file, or the config.json of a run.
        settings: values by dotted key; they win over `overrides`.
        overrides: as given to --set.
    """
    from spinenas.search.config.document import parse_override, read_document, toml_text, with_overrides
    from spinenas.search.config.loading import load_config, without_retired_keys

    values: dict[str, Any] = {**dict(map(parse_override, overrides)), **settings}
    if not source.endswith((".toml", ".json")) and not Path(source).is_file():
        document: dict[str, Any] = {"preset": source}
        return load_config(document, values), toml_text(with_overrides(document, values))
    text, document = read_document(Path(source))
    if source.endswith(".json"):
        document = without_retired_keys(document)
    config = load_config(document, values)
    if source.endswith(".json"):
        return config, toml_text(with_overrides(document, values))
    if values:  # the file stays as it is, for its comments
        said = toml_text(values).splitlines()
        text = "\n".join([text.rstrip(), "# Overridden on the command line:", *(f"# {line}" for line in said), ""])
    return config, text


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some options that were given."""
    return {key: value for key, value in settings.items() if value is not None}


def data_settings(data: Path | None) -> dict[str, Any]:
    """What --data stands for: this folder and no other, whatever files the configuration names."""
    from spinenas.proxy_task.config import BUILT_IN

    if data is None:
        return {}
    files = ("train_annotations", "train_images", "val_annotations", "val_images")
    folder = BUILT_IN if str(data) == BUILT_IN else str(data.absolute())
    return {"task.data.folder": folder} | {f"task.data.{name}": None for name in files}


def resume_advice(folder: Path) -> Callable[[], str]:
    """What to say of a search that is stopped: whether there is anything to resume shows only then."""

    def advice() -> str:
        journal = folder / "journal.jsonl"
        if journal.exists() and journal.stat().st_size:
            return f"go on with: spinenas resume {shlex.quote(str(folder))}"
        return "nothing was begun yet, give the command again"

    return advice


@contextmanager
def watched(advice: Callable[[], str]) -> Iterator[None]:
    """Keep stdout for the results, and turn Ctrl-C and SIGTERM into a word on how to go on."""
    try:
        with redirect_stdout(sys.stderr):  # Ray prints what its daemons have to say on stdout
            yield
    except KeyboardInterrupt:
        click.echo(f"stopped; {advice()}", err=True)
        raise SystemExit(INTERRUPTED) from None
    except Terminated:
        click.echo(f"stopped by SIGTERM; {advice()}", err=True)
        raise SystemExit(TERMINATED) from None


def print_rows(rows: list[dict[str, Any]], format: str | None, styles: Mapping[str, str]) -> None:
    from spinenas.search.cli.table import format_rows

    click.echo(format_rows(rows, format, styles))


def refuse_empty(run: Run) -> None:
    """Fail unless some trial is complete. Raises UserError."""
    records = run.records()
    failures = [record.failure for record in records if record.failure is not None]
    if failures and len(failures) == len(records):
        raise UserError(
            f"none of the {len(records)} trials has a result; the last one: {failures[-1].kind}, {failures[-1].message}"
        )
