"""What a training printed: any text log with losses in it, from nanoGPT and Megatron to a loop of one's own.

Lines are read by their words, so a program need not be known; the few whose lines need more are a table in
`lossdoctor.runs.printed.forms`. Files are read line by line: what is in memory is the numbers.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lossdoctor.errors import LogError
from lossdoctor.runs.printed.assembly import assembled, has_place, shown_places
from lossdoctor.runs.printed.lines import as_text, lines, lines_of
from lossdoctor.runs.printed.names import is_metric
from lossdoctor.runs.printed.parser import Parser
from lossdoctor.runs.readers.log import Log, Series

__all__ = ["FORMAT", "detect", "log_of", "read"]

FORMAT = "text log"

_TAIL = 1 << 16
_LOSSES_ALONE = 10  # lines that say a loss and no step
_ONE_ROW = 3  # values in the only line of a log that ends there; a sentence has one or two
_OTHERS = frozenset(
    [".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".yaml", ".yml", ".toml", ".xml", ".html", ".htm", ".ipynb", ".svg"]
)
_SOURCES = frozenset(
    [
        ".py",
        ".md",
        ".rst",
        ".tex",
        ".c",
        ".cc",
        ".cpp",
        ".cu",
        ".h",
        ".js",
        ".ts",
        ".sh",
        ".go",
        ".rs",
        ".java",
        ".r",
        ".jl",
        ".ini",
        ".cfg",
        ".patch",
        ".diff",
    ]
)
_PRINTED = frozenset({".log", ".txt", ".out", ".err", ""})
_SETTING = re.compile(
    r"\b(?P<name>[A-Za-z_]\w{0,60})=(?:'(?P<text>[^']{0,200})'|(?P<plain>[^,()'\[\]{}\s]{1,60}))(?=[,)])"
)
_LISTED = re.compile(r"\s{0,8}(?:-\s)?(?P<name>[A-Za-z_]\w{0,60})\s{0,40}:\s(?P<plain>\S{1,60})\s*$")
_TIME = re.compile(r"(\d{4})[-/](\d\d)[-/](\d\d)[ T_](\d\d):(\d\d):(\d\d)")
_MEANS = frozenset({"Transformers", "fairseq", "Megatron-LM", "Transformer-XL"})
"""Programs that print the mean of all steps since the line before."""
_MOST_SETTINGS = 500
_PREAMBLE = 2_000  # lines in which settings are looked for


def detect(path: Path, head: bytes) -> bool:
    """Whether the head of a file, or its end if source code and tables come first, has losses at several steps."""
    if path.is_dir() or path.suffix.lower() in _OTHERS or (text := as_text(head)) is None:
        return False
    if _is_log(path, text):
        return True
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size <= len(head):
                return False
            file.seek(max(len(head), size - _TAIL))
            tail = file.read(_TAIL)
    except OSError:
        return False
    text = as_text(tail)
    return text is not None and _is_log(path, text)


def _is_log(path: Path, text: str) -> bool:
    parser, count = Parser(), 0
    for line in lines_of(text):
        parser.feed(line)
        count += 1
    parser.close()
    places = shown_places(parser)
    losses = sum(is_metric(name) for name in parser.columns.series())
    if not losses:
        return False
    if path.suffix.lower() in _SOURCES:  # a log that was given another name, not an example in a text
        return places > 1 and parser.columns.rows * 2 > count
    printed = path.suffix.lower() in _PRINTED
    return (
        places > 1
        or (printed and places > 0 and len(parser.columns) >= _ONE_ROW)
        or (not places and parser.columns.rows >= _LOSSES_ALONE)
    )


def read(path: Path) -> list[Log]:
    """Read a text log; where a training in it begins anew is left to be seen. Raises LogError if it has no losses."""
    try:
        return [log_of(path, lines(path))]
    except OSError as error:
        raise LogError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error


def log_of(path: Path, printed: Iterable[str], *, known_as: str = FORMAT) -> Log:
    """The training that printed these lines."""
    parser, config, started = Parser(), dict[str, Any](), None
    for count, line in enumerate(printed):
        if count < _PREAMBLE and not parser.columns.rows:
            _settings(line, config)
            started = started or _time(line)
        parser.feed(line)
        if parser.columns.full:
            break
    parser.close()
    series, rows, warnings = assembled(parser)
    if not any(is_metric(name) for name in series):
        raise LogError(
            f"{path}: no line with a loss was found; lines should say a step or epoch and a loss: 'step 10: loss 2.3'"
        )
    named = {name: count for name, count in parser.formats.items() if name}
    form = max(named, key=lambda name: named[name]) if has_place(parser).any() and named else known_as
    bars = parser.kind.count(Parser.KERAS) * 2 > len(parser.kind)
    form = "Keras" if bars else form
    return Log(
        path,
        form,
        _gluon(series, config),
        rows,
        config=config,
        started=started,
        warnings=tuple(warnings),
        rows_are_means=bars or form in _MEANS,
    )


def _settings(line: str, config: dict[str, Any]) -> None:
    """What a program prints of its settings: argparse's Namespace(lr=0.1, ...), or a list of "name : value"."""
    if len(config) >= _MOST_SETTINGS:
        return
    if "Namespace(" in line or "Arguments(" in line:
        for match in _SETTING.finditer(line):
            config[match["name"]] = _value(match["text"] if match["text"] is not None else match["plain"])
    elif (listed := _LISTED.match(line)) is not None:
        config[listed["name"]] = _value(listed["plain"])


def _value(text: str) -> Any:
    if text in {"True", "False", "None"}:
        return {"True": True, "False": False, "None": None}[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _time(line: str) -> float | None:
    """The time a line says, taken for UTC: only differences between runs matter."""
    match = _TIME.search(line[:200])
    if match is None:
        return None
    try:
        return datetime(*(int(part) for part in match.groups()), tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]
    except ValueError:
        return None


def _gluon(series: dict[str, Series], config: dict[str, Any]) -> dict[str, Series]:
    """GluonCV's "train=0.46 val=0.55": accuracies, except that with mixup the first is an error (RMSE)."""
    train = "train/rmse" if config.get("mixup") is True else "train/accuracy"
    names = {"gluon_train": train, "gluon_val": "val/accuracy"}
    return {names.get(name, name): one for name, one in series.items()}
