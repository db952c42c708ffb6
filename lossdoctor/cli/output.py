"""Where the command line writes: one way out for reports, one for complaints."""

import io
import os
import sys
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.text import Text

from lossdoctor.errors import UsageError
from lossdoctor.reports.page import Page
from lossdoctor.reports.printable import printable

__all__ = ["complain", "console_on", "page_for", "write", "write_file"]


def console_on(stream: TextIO) -> Console:
    """A console that never interprets what it prints; it colours a terminal, and obeys NO_COLOR and FORCE_COLOR."""
    return Console(file=stream, markup=False, highlight=False, emoji=False, soft_wrap=True)


def page_for(output: Path | None, *, verbose: bool = False) -> Page:
    """The page for stdout, or for a file (always UTF-8)."""
    unicode = output is not None or _knows_unicode(sys.stdout)
    return Page(width=console_on(sys.stdout).width, unicode=unicode, verbose=verbose)


def write(content: str | Text) -> None:
    """Write to stdout; styles show where colours are wanted. A reader that closed the pipe has seen enough."""
    if isinstance(content, Text):
        console = console_on(sys.stdout)
        with console.capture() as capture:
            console.print(content)
        content = capture.get()
    try:
        sys.stdout.write(content)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)


def write_file(path: Path, content: str | Text) -> None:
    """Write a report to a file, without styles. Raises UsageError if that is not possible."""
    plain = f"{content.plain}\n" if isinstance(content, Text) else content
    try:
        path.write_text(plain, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output {path}: cannot be written: {error.strerror}") from None


def complain(message: str, label: str = "error") -> None:
    """One line on stderr."""
    text = printable(" ".join(message.split()), unicode=_knows_unicode(sys.stderr))
    console = console_on(sys.stderr)
    with console.capture() as capture:
        console.print(Text().append(f"{label}: ", "bold red").append(text))
    try:
        sys.stderr.write(capture.get())
        sys.stderr.flush()
    except BrokenPipeError:
        _silence(sys.stderr)


def _knows_unicode(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "").startswith("utf")


def _silence(stream: TextIO) -> None:
    """Send what is still to come to nowhere, so that the interpreter's last flush does not fail either."""
    try:
        descriptor = stream.fileno()
    except (OSError, io.UnsupportedOperation):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
