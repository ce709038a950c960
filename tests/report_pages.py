"""A parser for report pages, hostile text to put on them, and facts and runs to report on."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from fake_task import FakeTask

from spinenas.results.report.facts import RunFacts
from spinenas.search.config.config import SearchConfig
from spinenas.search.config.executor import ExecutorConfig
from spinenas.search.config.parts import BudgetConfig
from spinenas.search.run.lifecycle import run_search
from spinenas.search.run.run import Run

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'&<!--\x1b</svg></style>"

TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "div", "table", "thead", "tbody", "tr",
    "th", "td", "details", "summary", "pre", "figure", "figcaption", "img", "svg", "desc", "rect", "path", "text",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "class", "src", "alt", "xmlns", "viewbox", "width", "height",
    "role", "d", "x", "y",
}  # fmt: skip


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails if its tags do not match."""

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.rows: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "tr":
            self.rows.append("")
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.rows and "tr" in self._open:
            self.rows[-1] += f" {data}"

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def searched(out: Path, num_trials: int = 30, **fields: Any) -> Run:
    config = SearchConfig(
        budget=BudgetConfig(num_trials=num_trials, replicate_share=0.2), executor=ExecutorConfig(kind="serial"), seed=3
    )
    return run_search(config, out=out, task=FakeTask(num_epochs=1, **fields))


def facts_of(*records: Any, **fields: Any) -> RunFacts:
    return RunFacts("a run", records, tuple(record.number for record in records), **fields)
