"""What was found in a data set that its owner should know: counted, said once, and kept with the run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of thing that was found in a data set, for example boxes that leave their image.

    Attributes:
        what: the kind and what was done about it, such as "boxes clipped to their image".
        count: how many; 0 if the finding counts nothing.
        total: of how many; 0 if there is no such number.
        first: the first one, such as "annotation 12"; empty if there is nothing to name.
        advice: what it means or what to do, as the end of the sentence; empty if `what` says it all.
    """

    what: str
    count: int
    total: int = 0
    first: str = ""
    advice: str = ""

    @property
    def sentence(self) -> str:
        """The finding in words, such as "boxes clipped to their image: 2 of 20 (first: annotation 12)"."""
        if not self.count:
            return f"{self.what}: {self.advice}" if self.advice else self.what
        text = f"{self.what}: {self.count}" + (f" of {self.total}" if self.total else "")
        text += f" (first: {self.first})" if self.first else ""
        return text + (f"; {self.advice}" if self.advice else "")


@contextmanager
def not_logged() -> Iterator[None]:
    """Log no finding, for a command that prints them all itself."""
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def log_findings(findings: Iterable[Finding], source: Path) -> None:
    """Log each finding about a file or folder."""
    for finding in findings:
        logger.warning("%s: %s", source, finding.sentence)
