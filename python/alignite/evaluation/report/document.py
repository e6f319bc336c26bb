"""A whole HTML document that loads nothing and lets nothing act but what it was given."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from alignite.evaluation.report.markup import Html, join, tag

_BASE = Path(__file__).parent / "base.css"


def document(title: str, parts: Sequence[object], style: Path, script: Path | None = None) -> Html:
    """The document of a page's parts, in the shared style and the page's own.

    A policy allows these two pieces by their hashes and nothing else, whatever text the page shows.
    """
    css = join(Html(path.read_text(encoding="utf-8")) for path in (_BASE, style))
    code = Html(script.read_text(encoding="utf-8")) if script is not None else None
    allowed = f"'{_hash(code)}'" if code is not None else "'none'"
    policy = (
        f"default-src 'none'; style-src '{_hash(css)}'; script-src {allowed}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", css),
    )
    foot = tag("footer", f"Written by alignite {version('alignite')}. This page is whole: it loads nothing.")
    body = tag("body", tag("main", *parts, foot), tag("script", code) if code is not None else "")
    return join([Html("<!doctype html>\n"), tag("html", head, body, lang="en")])


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
