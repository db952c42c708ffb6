"""A comparison as text for a terminal."""

from collections.abc import Sequence

from rich.text import Text

from lossdoctor.comparison.layout import Cell, Section
from lossdoctor.comparison.sections import sections_of
from lossdoctor.comparison.values import Comparison
from lossdoctor.reports.finding import STYLES
from lossdoctor.reports.page import Page

__all__ = ["render"]

_WIDEST_CELL = 24
"""Cells of a table are at least this wide, if they need it, and else a third of the page."""

_NARROWEST = 20

_STYLES = {
    **STYLES,
    "name": "bold",
    "remark": "bold blue",
    "healthy": "bold green",
    "undecided": "bold yellow",
    "better": "bold green",
    "worse": "bold yellow",
    "different": "bold",
}


def render(comparison: Comparison, *, page: Page | None = None) -> Text:
    """The report; a verbose page has all metrics, all settings, and every run of many."""
    page = page or Page()
    parts = [_lines(section, page) for section in sections_of(comparison, verbose=page.verbose)]
    return Text("\n\n").join(Text("\n").join(part) for part in parts)


def _lines(section: Section, page: Page) -> list[Text]:
    lines = page.hang(Text(), section.title, "bold", indent=4) if section.title else []
    rows = [[(title, "faint") for title in section.head], *section.rows] if section.head else section.rows
    if rows:
        lines += _table(page, rows, right=section.right)
    for note in section.notes:
        lead = page.text((note.lead, "" if section.title else _STYLES.get(note.tone, "")))
        lines += page.hang(lead, note.sentence, _STYLES.get(note.tone, "") if section.title else "")
    return lines


def _table(page: Page, rows: Sequence[Sequence[Cell]], *, right: frozenset[int]) -> list[Text]:
    """A table without lines: columns as wide as they need, two blanks between them, the last one wrapped."""
    widest = max(_WIDEST_CELL, page.columns // 3)
    cells = [[_text(cell, page) for cell in row] for row in rows]
    cells = [[*(_cut(cell, widest) for cell in row[:-1]), row[-1]] for row in cells]
    widths = [max(row[column].cell_len for row in cells) for column in range(len(cells[0]) - 1)]
    lines = []
    for row in cells:
        lead = Text("  ")
        for column, (cell, width) in enumerate(zip(row, widths, strict=False)):
            pad = " " * (width - cell.cell_len)
            lead = lead.append(pad).append(cell) if column in right else lead.append(cell).append(pad)
            lead.append("  ")
        last = row[-1]
        if lead.cell_len + min(last.cell_len, _NARROWEST) > page.columns:  # no room beside it: below
            lines.append(lead)
            lead = Text(" " * 6)
        lines += page.hang(lead, last.plain, str(last.style))
    for line in lines:
        line.rstrip()
    return lines


def _text(cell: Cell, page: Page) -> Text:
    words, tone = (cell, "") if isinstance(cell, str) else cell
    return Text(page.show(words), _STYLES.get(tone, ""))


def _cut(cell: Text, width: int) -> Text:
    if cell.cell_len <= width:
        return cell
    short = cell.copy()
    short.truncate(width - 3)
    return short.append("...")
