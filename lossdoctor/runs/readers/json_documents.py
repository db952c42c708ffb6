"""JSON documents: HF Trainer's trainer_state.json, the history of a Keras model, and lists of rows."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from lossdoctor.errors import LogError
from lossdoctor.runs.collecting import Columns, number
from lossdoctor.runs.readers.json_lines import flat
from lossdoctor.runs.readers.log import Log
from lossdoctor.runs.readers.names import is_training_name, understand

__all__ = ["FORMAT", "could_be", "detect", "read"]

FORMAT = "JSON"
_TRAINER = "HF Trainer"

_LARGEST = 512 * 1024**2
_FEW = 3  # values make a curve
_LIST = re.compile(
    rb"""["']([^"'\\]{1,100})["']\s*:\s*[\[{]\s*(["'][01]["']|-?[\d.]|NaN|nan|null|(?:np\.)?float\d\d\()"""
)
_WRAPPED = re.compile(r"\b(?:np\.|numpy\.)?(?:float\d\d|array|tensor)\(([^()]{0,60})\)")
_PYTHON = {"None": "null", "nan": "NaN", "inf": "Infinity", "True": "true", "False": "false"}
_WORD = re.compile(rf"'([^'\\]{{0,200}})'|\b({'|'.join(_PYTHON)})\b")
_PAIR = re.compile(r"(.+)_val_(?:loss|acc|accuracy)")
_CONFIG = ("max_steps", "num_train_epochs", "train_batch_size", "logging_steps", "eval_steps", "save_steps")


def detect(path: Path, head: bytes) -> bool:
    """A document with a log_history, with lists under the names of losses, or a list of rows with an axis."""
    if path.is_dir():
        return False
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith((b"{", b'"{')):
        if b'"log_history"' in head:
            return True
        names = [match[1].decode("utf-8", "replace") for match in _LIST.finditer(head)]
        return any(understand(name).role in {"loss", "accuracy"} for name in names)
    if text.startswith(b"[") and text[1:].lstrip().startswith(b"{"):
        names = [name.decode("utf-8", "replace") for name in re.findall(rb'"([^"\\]{1,100})"\s*:', head[:20_000])]
        return any(understand(name).role in {"step", "epoch"} for name in names) and any(map(is_training_name, names))
    return False


def could_be(path: Path, head: bytes) -> bool:
    """Whether a file is an object with lists of numbers in it, whatever they are called."""
    return not path.is_dir() and head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{" and bool(_LIST.search(head))


def read(path: Path) -> list[Log]:
    """Read a document. Raises LogError where there are no rows in it."""
    document = _document(path)
    if isinstance(document, dict) and isinstance(document.get("log_history"), list):
        return [_trainer(path, document)]
    if isinstance(document, list):
        return [_rows(path, [row for row in document if isinstance(row, dict)])]
    if isinstance(document, dict):
        tables = {"": document}
        if not any(is_training_name(name) for name in document):  # {"history": {"loss": [...]}, "params": {...}}
            tables = _tables(document) or tables
        return [log for name, table in tables.items() for log in _histories(path, table, name)]
    raise LogError(f"{path}: no rows of a training in this JSON document; is this the right file?")


def _document(path: Path) -> Any:
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise LogError(f"{path}: a JSON document of {size / 1e6:.0f} MB; give a log with a line for every row")
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from None
    try:
        decoded = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        decoded = _as_python(content.decode("utf-8", "replace")) if content.lstrip()[:2] == b"{'" else None
    else:
        decoded = _as_python(decoded) if isinstance(decoded, str) else decoded
    if decoded is not None:
        return decoded
    try:
        return json.loads(content)  # knows NaN and Infinity, which are no JSON
    except RecursionError:
        raise LogError(f"{path}: nested too deeply; this is no log of a training") from None
    except UnicodeDecodeError:
        raise LogError(f"{path}: neither UTF-8 nor UTF-16; save it as UTF-8") from None
    except json.JSONDecodeError as error:
        cut = " (was it cut off?)" if error.pos >= len(content) - 2 else ""
        raise LogError(f"{path}: line {error.lineno}: not JSON{cut}: {error.msg}; check the file") from None
    except ValueError as error:
        raise LogError(f"{path}: not JSON: {error}; check the file") from None


def _as_python(text: str) -> Any:
    """A dictionary as Python prints it, None where it is none: str(model.fit(...).history)."""
    if not text.lstrip().startswith("{"):
        return None
    plain = _WRAPPED.sub(r"\1", text)
    try:
        return json.loads(_WORD.sub(lambda word: _PYTHON.get(word[2], "") if word[2] else json.dumps(word[1]), plain))
    except (ValueError, RecursionError):
        return None


def _trainer(path: Path, document: Mapping[str, Any]) -> Log:
    columns = Columns()
    for row in document["log_history"]:
        if isinstance(row, dict) and "train_runtime" not in row:  # the last row sums up the training
            columns.add_row(flat(row))
    if not columns.rows:
        raise LogError(f"{path}: log_history is empty; the Trainer logs every logging_steps")
    config = {key: document[key] for key in _CONFIG if number(document.get(key)) is not None}
    lost = [f"{path}: {columns.lost}"] if columns.lost else []
    return Log(path, _TRAINER, columns.series(), columns.rows, config=config, warnings=lost, rows_are_means=True)


def _rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Log:
    columns = Columns()
    for row in rows:
        columns.add_row(flat(row))
    if not columns.rows:
        raise LogError(f"{path}: no rows of a training in this JSON document; is this the right file?")
    lost = [f"{path}: {columns.lost}"] if columns.lost else []
    return Log(path, FORMAT, columns.series(), columns.rows, warnings=lost)


def _tables(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The dictionaries of columns within a document that is a wrapper around them: one, or one a fold or a phase."""
    found = {
        name: value
        for name, value in document.items()
        if isinstance(value, dict) and any(isinstance(column, dict | list) for column in value.values())
    }
    measured = {name: value for name, value in found.items() if any(map(is_training_name, value))} or found
    return measured if len(measured) != 1 else {"": next(iter(measured.values()))}


def _histories(path: Path, document: Mapping[str, Any], name: str) -> list[Log]:
    """One training, or several whose columns stand side by side: reg_loss and reg_val_loss beside cls_loss.

    They are several where they did not take the same number of epochs; else they may be parts of one.
    """
    firsts = {match[1] for match in map(_PAIR.fullmatch, document) if match}
    firsts = {first for first in firsts if {f"{first}_loss", f"{first}_acc", f"{first}_accuracy"} & document.keys()}
    families: dict[str, dict[str, Any]] = {}
    for column, values in document.items():
        first = max((first for first in firsts if column.startswith(f"{first}_")), key=len, default="")
        families.setdefault(first, {})[column.removeprefix(f"{first}_")] = values
    measured = {first: table for first, table in families.items() if any(map(_is_curve, table.items()))}
    lengths = {max(len(column[1]) for column in table.items() if _is_curve(column)) for table in measured.values()}
    if len(lengths) < 2:  # noqa: PLR2004  the same for all
        return [_history(path, document, name)]
    return [_history(path, table, "/".join(filter(None, (name, first or "main")))) for first, table in measured.items()]


def _is_curve(column: tuple[str, Any]) -> bool:
    return isinstance(column[1], list | dict) and is_training_name(column[0])


def _history(path: Path, document: Mapping[str, Any], own: str = "") -> Log:
    """Columns of values: {"loss": [...]}, or {"loss": {"0": ...}} as pandas writes them."""
    table: dict[str, list[float | None]] = {}
    for name, values in document.items():
        if isinstance(values, dict):
            values = list(values.values())  # noqa: PLW2901  the keys are the rows
        if isinstance(values, list) and values and all(isinstance(value, int | float | str | None) for value in values):
            table[name] = [number(value) for value in values]
    measured = [len(values) for name, values in table.items() if is_training_name(name)]
    measured = measured or [len(values) for values in table.values() if len(values) >= _FEW]
    if not measured:
        raise LogError(f"{path}: no list of losses in this JSON document; is this the right file?")
    rows: list[dict[str, float]] = [{} for _ in range(max(measured))]
    for name, values in table.items():
        # A list that is shorter has its values once in several epochs (validation_freq): at the end of each.
        every = len(rows) / len(values)
        for number_of, value in enumerate(values[: len(rows)], 1):
            if value is not None:
                rows[max(0, round(number_of * every) - 1)][name] = value
    columns = Columns()
    for row in rows:
        columns.add_row(row)
    return Log(path, "Keras history", columns.series(), columns.rows, name=own, rows_are_means=True)
