"""`spinenas show`: the blocks of an architecture as a table and as a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spinenas.search.cli.options import architecture_argument, format_options, note, path_option
from spinenas.search.cli.table import print_rows

if TYPE_CHECKING:
    from spinenas.search.cli.architecture_argument import ArchitectureArgument


@click.command(short_help="Print or draw an architecture with its costs.")
@architecture_argument
@path_option("--draw", "Also draw it, as FILE.svg or FILE.png.")
@click.option(
    "--beside", metavar="OTHER", help='Draw it beside another one and mark the differences: NAME, FILE or "RUN NUMBER".'
)
@click.option("--force", is_flag=True, help="Replace an existing picture.")
@format_options
def show(architecture: tuple[str, ...], draw: Path | None, beside: str | None, force: bool, format: str | None) -> None:
    """Print the blocks of an architecture with their costs.

    The architecture is a trial of a run, a published model, or a file of any format that `export` writes. A published
    model is shown with its published figures, each AP with its training protocol and source. An export is shown with
    its source, and if its weights are trained. Without an argument, the command prints a table of all published models.
    For a failed trial it prints the reason; with --json, the traceback follows on stderr.

    A picture has the blocks in order and by level, like the paper's. Two architectures are compared position by
    position, with the costs of both counted in the detector of the first.
    """
    from spinenas.search.cli.architecture_argument import find_architecture
    from spinenas.search.cli.published_table import published_rows

    if draw is None and (beside is not None or force):
        raise click.UsageError("--beside and --force need a picture; name its file with --draw")
    if draw is not None and not architecture:
        raise click.UsageError("--draw needs an architecture; name it before the option")
    if not architecture:
        _print_published(published_rows(), format)
        return
    found = find_architecture(architecture)
    if draw is not None:
        _draw(found, draw, beside, force)
    click.echo(f"{found.name}: {found.describe()}", err=format is not None)
    failure = found.record and found.record.failure
    if failure and failure.traceback and format == "json":
        note(failure.traceback.rstrip())
    print_rows(found.block_rows(), format, {"params": "millions", "madds": "billions"})


def _draw(found: ArchitectureArgument, path: Path, beside: str | None, force: bool) -> None:
    """Write the picture of an architecture, or of two."""
    from spinenas.results.pictures.architecture import draw, draw_pair
    from spinenas.results.pictures.picture_file import check_picture_path, write_picture
    from spinenas.search.cli.architecture_argument import find_architecture

    check_picture_path(path, force=force)
    if beside is None:
        svg = draw(found.subject())
    else:
        # A trial is given as a run and a number. The name of a file may contain spaces.
        words = (beside,) if Path(beside).exists() else tuple(beside.rsplit(" ", 1))
        other = find_architecture(words)
        svg = draw_pair(found.subject(), replace(other, detector=found.detector).subject())
        if other.detector != found.detector:  # the costs of two detectors would look like those of two backbones
            note(f"both are counted in the detector of {found.name}; that of {other.name} differs")
        if found.record and other.record and found.record.task_key != other.record.task_key:
            note(f"the APs of {found.name} and {other.name} are of different tasks and cannot be compared")
    write_picture(svg, path, force=force)
    note(f"drew {found.name} in {path}")


def _print_published(rows: list[dict[str, Any]], format: str | None) -> None:
    """Print all published models. A text table omits the sources, and the protocols are explained on stderr."""
    from spinenas.space.published import PROTOCOLS

    columns = {
        "params": "millions",
        "published_params": "printed millions",
        "params_ratio": "figure",
        "madds": "billions",
        "published_madds": "printed billions",
        "madds_ratio": "figure",
        "baseline_ratio": "figure",
        **{name: "three decimals" for name in rows[0] if name.startswith("ap_")},
    }
    if format is None:
        rows = [{name: value for name, value in row.items() if "source" not in name} for row in rows]
        note("parameters and multiply-adds are those of the whole RetinaNet, with 91 class channels, for one image")
        note("baseline_ratio: multiply-adds, relative to those of the baseline that the paper compares the model with")
        note("published APs are on COCO val2017 unless named test_dev; training protocols:")
        for name, words in PROTOCOLS.items():
            note(f"  {name}: {words}")
    print_rows(rows, format, columns)
