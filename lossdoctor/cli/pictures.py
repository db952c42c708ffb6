"""What `analyze` draws: a plot of each run as a file, and the page with all of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

from lossdoctor.cli.many import Sheet
from lossdoctor.errors import UsageError
from lossdoctor.rulebook import Rulebook

__all__ = ["check_plot", "page_on", "write_plots"]

_SUFFIXES = (".png", ".svg", ".pdf")


def check_plot(path: Path | None) -> None:
    """Refuse a file that could not be written, before time is spent on reading. Raises UsageError."""
    if path is None:
        return
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"--plot {path}: the name must end in {', '.join(_SUFFIXES)}")
    if not path.parent.is_dir():
        raise UsageError(f"--plot {path}: no such directory: {path.parent}")


def write_plots(path: Path, sheets: Sequence[Sheet], *, dark: bool) -> None:
    """Draw every run; of several, into numbered files in the order of the report: out-1.png, out-2.png."""
    from lossdoctor.reports.plots import save_plot

    for number, sheet in enumerate(sheets, 1):
        if sheet.picture is not None:
            own = path if len(sheets) == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
            save_plot(own, sheet.diagnosis, sheet.picture, paper="dark" if dark else "light")


def page_on(sheets: Sequence[Sheet], load: Callable[[], Rulebook]) -> str:
    """The page: one run in full, or an overview of several with each below it."""
    from lossdoctor.reports import html

    return html.page([(sheet.diagnosis, sheet.picture) for sheet in sheets], rules=load().rules)
