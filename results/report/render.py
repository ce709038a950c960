"""Renders the templates of this folder as self-contained HTML pages. Every value is escaped."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache

import jinja2

from spinenas.results.pictures.charts import STYLE

_NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that are not allowed in HTML."""


def render(template: str, *, refresh_seconds: float | None = None, **values: object) -> str:
    """Return a page as HTML.

    Args:
        template: file name of a template that extends page.html.j2.
        refresh_seconds: interval at which the open page reloads itself and keeps its scroll position; None for never.
        values: variables of the template.
    """
    environment = _environment()
    script = ""
    if refresh_seconds is not None:
        milliseconds = round(refresh_seconds * 1000)
        script = environment.get_template("refresh.js.j2").render(milliseconds=milliseconds)
    return environment.get_template(template).render(
        chart_style=STYLE,
        refresh_seconds=refresh_seconds,
        script=script,
        script_digest=_base64(hashlib.sha256(script.encode()).digest()),
        **values,
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spinenas.results.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_as_text,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["base64"] = lambda text: _base64(text.encode())
    return environment


def _as_text(value: object) -> object:
    """Replace characters that are not allowed in HTML. Text that a template has marked as HTML is kept."""
    return value if hasattr(value, "__html__") else _NOT_TEXT.sub("\ufffd", str(value))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
