"""A text file line by line, whatever wrote it: any line end, encoding or language, and no line too long for memory."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from lossdoctor.runs.languages import in_english

__all__ = ["MAX_LINE", "as_text", "lines", "lines_of"]

MAX_LINE = 1 << 16  # characters: longer lines are configurations and tensors, not measurements
_CHUNK = 1 << 20

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: it begins with the same two bytes
    (codecs.BOM_UTF16_LE, "utf-16"),  # what `python train.py > log.txt` writes in PowerShell
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BACKSPACES = re.compile("\x08+")
# Control sequences of terminals: colours, cursor movements, titles. Every part is bounded.
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]{0,32}[ -/]{0,4}[@-~]|\][^\x07\x1b]{0,256}(?:\x07|\x1b\\)|[@-Z\\^_])?")


def _encoding(head: bytes) -> str:
    return next((name for bom, name in _BOMS if head.startswith(bom)), "utf-8")


def _clean(text: str) -> str:
    """Text without what only a terminal understands; going back over what was printed begins a new line."""
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    if "\x08" in text:
        text = _BACKSPACES.sub("\r", text)
    return text.replace("\x00", "") if "\x00" in text else text


def as_text(head: bytes) -> str | None:
    """The head of a file as text, or None if it is not text: binary formats have many bytes no text has."""
    encoding = _encoding(head)
    text = head.decode(encoding, errors="replace")
    odd = sum(text.count(bad) for bad in "\x00\x01\x02\x03\x04\x05\x06")
    foreign = text.count("\ufffd")  # another encoding's bars and accents
    return None if odd > len(text) // 50 + 1 or foreign > len(text) // 3 else _clean(text)


def lines_of(text: str) -> Iterator[str]:
    """The lines of a text that is in memory, without the too long ones."""
    return (in_english(line) for line in text.splitlines() if line and len(line) <= MAX_LINE)


def lines(path: Path) -> Iterator[str]:
    """The lines of a file that are not empty; a megabyte of it is in memory at a time.

    A carriage return ends a line (progress bars), bytes that are not of the encoding become U+FFFD, and lines longer
    than `MAX_LINE` are left out.
    """
    with path.open("rb") as file:
        chunk = file.read(_CHUNK)
        decode = codecs.getincrementaldecoder(_encoding(chunk))(errors="replace").decode
        rest, skipping = "", False
        while chunk:
            text = _clean(rest + decode(chunk))
            parts = text.splitlines(keepends=True)
            rest = parts.pop() if parts and not parts[-1].endswith(("\n", "\r")) else ""
            for part in parts:
                if skipping:
                    skipping = False
                    continue
                line = part.rstrip("\r\n")
                if line and len(line) <= MAX_LINE:
                    yield in_english(line)
            if len(rest) > MAX_LINE:
                rest, skipping = "", True
            chunk = file.read(_CHUNK)
        if rest and not skipping and len(rest) <= MAX_LINE:
            yield in_english(rest)
