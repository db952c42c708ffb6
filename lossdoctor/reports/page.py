"""What a text report is written on: how wide it is, which characters it knows, how lines are broken."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells
from rich.text import Text

from lossdoctor.reports.printable import printable

__all__ = ["NARROWEST", "WIDEST", "Page"]

NARROWEST = 60
WIDEST = 120
"""Lines longer than this are hard to read, however wide the terminal."""

_NARROWEST_COLUMN = 20
"""Text is not squeezed into less than this: the line is too long then."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of `width` columns; without `unicode`, of ASCII alone.

    Every text that comes from outside passes through here and is neutralised; styles are attached to `Text` objects,
    so markup such as ``[bold]`` in a log is just text.
    """

    width: int = 80
    unicode: bool = True
    verbose: bool = False

    @property
    def columns(self) -> int:
        """The width within the limits of legibility."""
        return max(NARROWEST, min(WIDEST, self.width))

    def show(self, text: str) -> str:
        """`text` neutralised and spelled in the characters of this page."""
        return printable(text, unicode=self.unicode)

    def text(self, *parts: str | tuple[str, str]) -> Text:
        """One line of styled parts: a string, or (string, style)."""
        line = Text()
        for part in parts:
            content, style = (part, "") if isinstance(part, str) else part
            line.append(self.show(content), style)
        return line

    def hang(
        self, lead: Text, body: str, style: str = "", *, gutter: Text | None = None, indent: int | None = None
    ) -> list[Text]:
        """`lead` and `body`, wrapped with further lines indented under where the body began, or by `indent`.

        `gutter` is what further lines begin with, within that indentation.
        """
        indent = lead.cell_len if indent is None else indent
        gutter = gutter or Text()
        further = gutter.copy().append(" " * (indent - gutter.cell_len))
        pieces = _wrap(self.show(body), self.columns - indent, taken=lead.cell_len - indent)
        return [(further if row else lead).copy().append(piece, style) for row, piece in enumerate(pieces)] or [lead]

    def table(self, rows: Sequence[tuple[str, str]], *, indent: str = "  ", style: str = "") -> list[Text]:
        """Two columns: names, and texts wrapped beside them. Where a name is very long its text goes below it."""
        names = [self.show(name) for name, _ in rows]
        longest = max((cell_len(name) for name in names), default=0)
        room = min(longest, self.columns // 3)
        lines: list[Text] = []
        for name, (_, body) in zip(names, rows, strict=True):
            pad = room - cell_len(name)
            if pad < 0:
                lines.append(Text(indent).append(name, style))
                lines += self.hang(Text(indent + " " * (room + 2)), body)
            else:
                lines += self.hang(Text(indent).append(name, style).append(" " * (pad + 2)), body)
        return lines


def _wrap(text: str, width: int, *, taken: int = 0) -> list[str]:
    """`text` in lines of at most `width` cells, broken at blanks; a longer word is cut.

    `taken` are cells of the first line that are not free.
    """
    width = max(width, _NARROWEST_COLUMN)
    lines: list[str] = []
    line = ""
    for word in text.split():
        free = max(width - (0 if lines else taken), _NARROWEST_COLUMN)
        joined = f"{line} {word}" if line else word
        if cell_len(joined) <= free:
            line = joined
            continue
        if line:
            lines.append(line)
        *full, line = chop_cells(word, free if not line else width)
        lines += full
    return [*lines, line] if line else lines
