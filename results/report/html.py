"""HTML as text, everything that comes from outside escaped; it knows nothing of what a page is about.

`Markup` is a type of its own for the type checker: a plain string cannot be put into a page but by `text`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from typing import NewType

Markup = NewType("Markup", str)

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --quiet: #5b636d; --line: #e1e4e8; --shade: #f5f6f8;
  --link: #1769aa; --warn: #8a4b00; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e8eaed; --quiet: #a0a8b2; --line: #2c3138;
  --shade: #1b1f25; --link: #6cb4ee; --warn: #ffb066; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.6rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.6rem; border-top: 1px solid var(--line); padding-top: 1rem; }
p { max-width: 46rem; overflow-wrap: anywhere; }
.quiet, figcaption { color: var(--quiet); }
.warn { color: var(--warn); }
.result { font-weight: 600; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 20px; }
figure { margin: 0; min-width: 0; }
figure > svg { display: block; width: 100%; max-width: 600px; height: auto; }
figcaption { font-size: 0.9rem; max-width: 600px; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: 0 0 1rem; }
.wide img { display: block; min-width: 720px; max-width: 100%; height: auto; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--quiet); font-weight: 600; white-space: nowrap; }
td { white-space: nowrap; }
.long { white-space: normal; overflow-wrap: anywhere; min-width: 16rem; max-width: 34rem; }
@media (max-width: 520px) { table { font-size: 0.8rem; } th, td { padding-right: 8px; white-space: normal; }
  td { overflow-wrap: anywhere; min-width: 4.5rem; } .number { white-space: nowrap; min-width: 0; }
  .long { min-width: 8.5rem; } }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
details { margin: 0.6rem 0; }
summary { cursor: pointer; }
"""


def text(value: object) -> Markup:
    """Return anything as text of a page, characters that it cannot hold replaced."""
    return Markup(
        html.escape(re.sub("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", str(value)))
    )


def tag(name: str, *content: Markup, css: str = "") -> Markup:
    """Return an element with this content and class."""
    attribute = f' class="{html.escape(css)}"' if css else ""
    return Markup(f"<{name}{attribute}>{''.join(content)}</{name}>")


def paragraph(words: str, css: str = "") -> Markup:
    """Return a paragraph of text."""
    return tag("p", text(words), css=css)


def section(title: str, *content: Markup) -> Markup:
    """Return a heading and what follows it."""
    return Markup(tag("h2", text(title)) + "\n" + "\n".join(content))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    """Return a table of texts that scrolls by itself where it is too wide; a dash stands for None.

    A column of numbers and dashes is read from the right.
    """
    shown = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    numeric = [
        bool(column) and all(re.fullmatch(r"[-+±]?[\d.,]*( [MGsh%]|\u00a0to\u00a0[\d.]+)?", cell) for cell in column)
        for column in zip(*shown, strict=True)
    ]
    numeric = numeric or [False] * len(header)
    css = ["number" if right else "" for right in numeric]
    head = tag("tr", *(tag("th", text(name), css=style) for name, style in zip(header, css, strict=True)))
    body = [
        tag(
            "tr",
            *(
                tag("td", text(cell), css="long" if len(cell) > 36 else style)
                for cell, style in zip(row, css, strict=True)
            ),
        )
        for row in shown
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), css="wide")


def folded(title: str, *content: Markup) -> Markup:
    """Return content that is shown when its title is clicked."""
    return tag("details", tag("summary", text(title)), *content)


def picture(svg: str, words: str) -> Markup:
    """Return a drawing as an image, in which nothing can run; its colours are its own. The words are for the blind."""
    data = base64.b64encode(svg.encode()).decode()
    return tag("div", Markup(f'<img alt="{text(words)}" src="data:image/svg+xml;base64,{data}">'), css="wide")


def page(title: str, *content: Markup, style: str = "", refresh_seconds: float | None = None) -> str:
    """Return a whole page in one file, which loads nothing and runs nothing but its own refreshing.

    Args:
        title: of the window.
        style: rules beside STYLE.
        refresh_seconds: after so long it loads itself again, and scrolls to where it was; None for never.
    """
    script = "" if refresh_seconds is None else _refresh(refresh_seconds)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"; script-src 'sha256-{digest}'" if script else ""
    head = [
        '<meta charset="utf-8">',
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        f'img-src data:{allowed}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{text(title)}</title>",
        f"<style>{STYLE}{style}</style>",
    ]
    if refresh_seconds is not None:
        head.append(f'<noscript><meta http-equiv="refresh" content="{max(1, round(refresh_seconds))}"></noscript>')
        head.append(f"<script>{script}</script>")
    top = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", "<main>"]
    return "\n".join([*top, *content, "</main>", "</body>", "</html>", ""])


def _refresh(seconds: float) -> str:
    """A script that works without a server; where a page may store nothing, the browser finds the place by itself."""
    return f"""
(function () {{
  var key = "scroll:" + location.pathname;
  try {{
    var before = sessionStorage.getItem(key);
    if (before !== null) addEventListener("load", function () {{ scrollTo(0, Number(before)); }});
  }} catch (error) {{}}
  setTimeout(function () {{
    try {{ sessionStorage.setItem(key, String(scrollY)); }} catch (error) {{}}
    location.reload();
  }}, {round(seconds * 1000)});
}})();
"""
