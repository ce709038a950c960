"""`spinenas report` and `spinenas compare`: pages for looking at runs."""

from __future__ import annotations

from pathlib import Path

import click

from spinenas.search.cli.options import run_argument, watched


@click.command()
@run_argument
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Page to write; RUN/report.html by default."
)
@click.option("--control", type=click.Path(path_type=Path), metavar="RUN", help="A random search to see it beside.")
@click.option("--figures", type=click.Path(path_type=Path), metavar="DIR", help="Write each figure as a file as well.")
@click.option(
    "--figure-format", type=click.Choice(["png", "svg"]), default="png", show_default=True, help="What files those are."
)
@click.option("--watch", is_flag=True, help="Keep the page current until the search is over.")
@click.option("--every", type=click.FloatRange(min=1), metavar="SECONDS", help="How often with --watch; 10 by default.")
@click.option("--force", is_flag=True, help="Replace what exists.")
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
    """Write a run as one HTML page that needs no network: how it went, what it found, and how sure that is.

    The page follows the reader's light or dark mode. With --watch it is written again while the search goes on, and
    loads itself again in the browser; it may be begun before or after the search, and ends with it. The report in
    the run's own folder is replaced without --force.
    """
    from spinenas.search.outputs import report_files

    if every is not None and not watch:
        raise click.UsageError("--every is how often --watch looks; give both")
    if watch and figures is not None:
        raise click.UsageError("--figures are of a run as it is, and --watch goes on; give one of them")
    page = out or run / "report.html"
    report_files.check_out(page, force=force or out is None)
    if figures is not None:
        written = report_files.write_figures(run, figures, format=figure_format, control=control, force=force)
        click.echo(f"wrote {len(written)} figures to {figures}", err=True)
    if watch:
        click.echo(f"the page is {page}, current every {every or 10:g} s until the search is over", err=True)
        with watched(lambda: f"the page is {page} as it was"):
            report_files.watch_report(run, page, control=control, every_seconds=every or 10.0)
    else:
        report_files.write_report(run, page, control=control)
    click.echo(f"wrote {page}", err=True)


@click.command()
@click.argument("runs", type=click.Path(path_type=Path), metavar="RUN RUN...", nargs=-1, required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Page to write, FILE.html.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def compare(runs: tuple[Path, ...], out: Path, force: bool) -> None:
    """Write several runs as one HTML page: winners with their intervals, progress, distributions.

    Runs of different tasks are shown apart: their figures mean different things.
    """
    from spinenas.results.report.comparison import compare_page
    from spinenas.search.outputs import report_files
    from spinenas.search.outputs.run_facts import read_facts

    report_files.check_out(out, force=force)
    report_files.write_page(out, compare_page([read_facts(run) for run in runs]))
    click.echo(f"wrote {out}", err=True)
