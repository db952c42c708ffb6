"""A diagnosis as one web page: self-contained, readable without a script, safe whatever the log has in it.

Nothing is loaded from anywhere. The templates escape every value, after what cannot be printed was replaced by its
code (a right-to-left mark could make a harmless line read as another); and the page forbids, by its own
Content-Security-Policy, every script and style but its own two, which it names by their hashes.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any

import jinja2
from markupsafe import Markup

from lossdoctor.findings import Diagnosis
from lossdoctor.reports.heat import elided
from lossdoctor.reports.palette import DARK, HEAT, LIGHT, RUNS
from lossdoctor.reports.picture import Picture
from lossdoctor.reports.printable import cut, printable
from lossdoctor.reports.views import View, view_of
from lossdoctor.rulebook import Rule

__all__ = ["document", "fragment", "page"]

_UNFOLDED = 4
"""Runs up to which every one of them is shown open."""


def page(runs: Sequence[tuple[Diagnosis, Picture | None]], *, rules: Mapping[str, Rule] = MappingProxyType({})) -> str:
    """The page on these runs: one in full, or an overview of several with each below it."""
    views = [
        view_of(diagnosis, picture, rules=rules, anchor=f"run-{number}")
        for number, (diagnosis, picture) in enumerate(runs, 1)
    ]
    title = f"{views[0].headline}: {views[0].diagnosis.run}" if len(views) == 1 else f"{len(views)} runs"
    return document("page.html", title=title, views=views, folded=len(views) > _UNFOLDED)


def document(template: str, **values: Any) -> str:
    """A whole page of a template, with the style, the script and the policy that allows these two alone."""
    style, script = stylesheet(), _asset("page.js")
    return (
        _environment()
        .get_template(template)
        .render(
            **values,
            style=Markup(style),  # noqa: S704  our own files, nothing of a log's
            script=Markup(script),  # noqa: S704
            style_hash=_hash(style),
            script_hash=_hash(script),
            version=_version(),
        )
    )


def fragment(view: View) -> str:
    """A view for a notebook: no script, and a style that stays within it."""
    own = f"{_variables('.lossdoctor', notebook=True)}.lossdoctor{{{_LOOK}{_levels()}{_asset('page.css')}}}"
    return _environment().get_template("notebook.html").render(view=view, style=Markup(own))  # noqa: S704


def stylesheet() -> str:
    """The style of the page: its colours, then the rest."""
    body = "html{background:var(--paper)}body{margin:0 auto;padding:20px 28px 40px;max-width:1560px}"
    return f"{_variables('.page')}.page{{{_LOOK}}}{body}{_levels()}{_asset('page.css')}{_runs()}"


_LOOK = (
    'color:var(--ink);font:14.5px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;'
)


def _levels() -> str:
    return "".join(f".heat-{level}{{fill:{colour};background:{colour}}}" for level, colour in enumerate(HEAT))


def _runs() -> str:
    """The colours of runs that are compared: of lines, and of the strokes before their names."""
    return "".join(
        f".run-{number}{{stroke:var(--run-{number})}}.key.run-{number}::before{{border-color:var(--run-{number})}}"
        for number in range(RUNS)
    )


def _variables(selector: str, *, notebook: bool = False) -> str:
    light, dark = ("".join(f"--{name}:{colour};" for name, colour in colours.items()) for colours in (LIGHT, DARK))
    css = f"{selector}{{{light}}}@media screen and (prefers-color-scheme:dark){{{selector}{{{dark}}}}}"
    if notebook:  # a notebook has a theme of its own
        css += f'[data-jp-theme-light="true"] {selector},.vscode-light {selector}{{{light}}}'
        css += f'[data-jp-theme-light="false"] {selector},.vscode-dark {selector}{{{dark}}}'
    return css


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lossdoctor.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"cut": cut, "elided": elided}
    return environment


def _shown(value: Any) -> Any:
    """Every text that goes into the page passes through here; what is markup already is the templates' own."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(name: str) -> str:
    source = _environment().loader
    assert source is not None  # noqa: S101  set above
    return source.get_source(_environment(), name)[0]


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _version() -> str:
    try:
        return version("lossdoctor")
    except PackageNotFoundError:
        return ""
