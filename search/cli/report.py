"""`spinenas report` and `spinenas compare`: write runs as HTML pages."""

from __future__ import annotations

from pathlib import Path

import click

from spinenas.search.cli.options import PATH, force_option, note, path_option, run_argument, watched


@click.command()
@run_argument
@path_option("--out", "Page to write. The default is RUN/report.html.")
@path_option("--control", "Random search to plot as a control.", metavar="RUN")
@path_option("--figures", "Also write each figure to this folder.", metavar="FOLDER")
@click.option(
    "--figure-format",
    type=click.Choice(["png", "svg"]),
    default="svg",
    show_default=True,
    help="Format of these files.",
)
@click.option("--watch", is_flag=True, help="Update the page until the search ends.")
@click.option(
    "--every",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="Time between updates with --watch. The default is 10.",
)
@click.option("--force", is_flag=True, help="Replace existing files.")
def report(
    run: Path,
    out: Path | None,
    control: Path | None,
    figures: Path | None,
    figure_format: str,
    watch: bool,
    every: float | None,
    force: bool,
) -> None:
    """Write a run as one HTML page.

    The page shows the progress of the search, the winner, and the uncertainty of its result. It is a single file that
    loads nothing from the network, and follows the reader's light or dark mode. With --watch the command rewrites the
    page while the search runs, and the page reloads itself in the browser. A report in the folder of the run is
    replaced without --force.
    """
    from spinenas.search.outputs import report_files

    if every is not None and not watch:
        raise click.UsageError("--every sets the time between updates with --watch; give both")
    if watch and figures is not None:
        raise click.UsageError("--figures writes the figures once, and --watch keeps updating; give one of them")
    page = out or run / "report.html"
    if out is not None:
        report_files.check_out(page, force=force)
    if figures is not None:
        written = report_files.write_figures(run, figures, format=figure_format, control=control, force=force)
        note(f"wrote {len(written)} figures to {figures}")
    if watch:
        note(f"the page {page} is updated every {every or 10:g} s until the search ends")
        with watched(lambda: f"the page {page} stays as it was", waits_for="the page"):
            report_files.watch_report(run, page, control=control, every_seconds=every or 10.0)
    else:
        report_files.write_report(run, page, control=control)
    note(f"wrote {page}")


@click.command()
@click.argument("runs", type=PATH, metavar="RUN RUN...", nargs=-1, required=True)
@path_option("--out", "Page to write, FILE.html.", required=True)
@force_option
def compare(runs: tuple[Path, ...], out: Path, force: bool) -> None:
    """Write several runs as one HTML page.

    The page compares winners with their intervals, progress and distributions. Runs of different tasks are shown in
    separate sections, because their figures are not comparable.
    """
    from spinenas.results.report.comparison import compare_page
    from spinenas.search.outputs import report_files
    from spinenas.search.outputs.run_facts import read_facts

    report_files.check_out(out, force=force)
    report_files.write_page(out, compare_page([read_facts(run) for run in runs]))
    note(f"wrote {out}")
