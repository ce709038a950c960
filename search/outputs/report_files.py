"""Writes the report of a run as files, and keeps the report of a running search current."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from spinenas.results.report.facts import RunFacts
from spinenas.results.report.page import drawings, figures, report_page
from spinenas.results.storage.atomic_write import check_destination, write_chosen_file
from spinenas.results.storage.lease import is_owned
from spinenas.search.outputs.run_facts import read_control, read_facts
from spinenas.space.errors import UserError, explained_os_errors


def check_out(path: Path, *, force: bool) -> None:
    """Raise UserError for a path with another suffix, or an existing file that may not be replaced."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{path} is not the name of a page; end it in .html")
    check_destination(path, force=force)


def write_page(path: Path, text: str) -> None:
    """Write a page atomically. Raises UserError."""
    write_chosen_file(path, text.encode())


def write_report(
    run: Path, out: Path, *, control: Path | None = None, refresh_seconds: float | None = None
) -> RunFacts:
    """Write the report of a run in its present state, and return its facts. Raises UserError.

    Args:
        run: run folder.
        out: path of the page; an existing file is replaced.
        control: folder of a control run.
        refresh_seconds: interval at which the page reloads itself; ignored if the run is over.
    """
    facts = read_facts(run)
    beside = None if control is None else read_control(control, facts)
    write_page(out, report_page(facts, beside, refresh_seconds=None if facts.is_over else refresh_seconds))
    return facts


def watch_report(
    run: Path,
    out: Path,
    *,
    control: Path | None = None,
    every_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Rewrite the report whenever the journal grows, until the run is over. Raises UserError.

    The last page is final and does not reload itself.
    """
    seen: tuple[int, bool] | None = None
    while True:
        state = _journal_bytes(run), is_owned(run / "lease")
        if state != seen:
            facts = write_report(run, out, control=control, refresh_seconds=every_seconds)
            if facts.is_over:
                return
            seen = state
        sleep(every_seconds)


def _journal_bytes(run: Path) -> int:
    with explained_os_errors(f"cannot read the journal of {run}", "check that the run folder is complete"):
        return (run / "journal.jsonl").stat().st_size


def write_figures(
    run: Path, folder: Path, *, format: str, control: Path | None = None, force: bool = False
) -> list[Path]:
    """Write each figure of a report to its own file, and return the paths. Raises UserError.

    Args:
        format: "svg" or "png"; PNG needs the extra `spinenas[draw]`.
        force: replace existing files.
    """
    from spinenas.results.pictures.picture_file import check_picture_path, write_picture

    facts = read_facts(run)
    beside = None if control is None else read_control(control, facts)
    pictures = {name: figure.svg() for name, figure in figures(facts, beside).items()} | drawings(facts)
    paths = {name: folder / f"{name}.{format}" for name in pictures}
    with explained_os_errors(f"cannot create the folder {folder}", "choose another place"):
        folder.mkdir(parents=True, exist_ok=True)
    for path in paths.values():
        check_picture_path(path, force=force)
    for name, path in paths.items():
        write_picture(pictures[name], path, force=force)
    return list(paths.values())
