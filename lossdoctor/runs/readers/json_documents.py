"""JSON documents: HF Trainer's trainer_state.json, the history of a Keras model, and lists of rows."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from lossdoctor.errors import LogError
from lossdoctor.runs.readers.json_lines import flat
from lossdoctor.runs.readers.log import Log
from lossdoctor.runs.readers.names import is_training_name, understand
from lossdoctor.runs.readers.numbers import Columns, number

__all__ = ["FORMAT", "detect", "read"]

FORMAT = "JSON"
_TRAINER = "HF Trainer"

_LARGEST = 512 * 1024**2
_LIST = re.compile(rb'"([^"\\]{1,100})"\s*:\s*[\[{]\s*("0"|"1"|-?[\d.]|NaN|null)')
_CONFIG = ("max_steps", "num_train_epochs", "train_batch_size", "logging_steps", "eval_steps", "save_steps")


def detect(path: Path, head: bytes) -> bool:
    """A document with a log_history, with lists under the names of losses, or a list of rows with an axis."""
    if path.is_dir():
        return False
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"{"):
        if b'"log_history"' in head:
            return True
        names = [match[1].decode("utf-8", "replace") for match in _LIST.finditer(head)]
        return any(understand(name).role in {"loss", "accuracy"} for name in names)
    if text.startswith(b"[") and text[1:].lstrip().startswith(b"{"):
        names = [name.decode("utf-8", "replace") for name in re.findall(rb'"([^"\\]{1,100})"\s*:', head[:20_000])]
        return any(understand(name).role in {"step", "epoch"} for name in names) and any(map(is_training_name, names))
    return False


def read(path: Path) -> list[Log]:
    """Read a document. Raises LogError where there are no rows in it."""
    document = _document(path)
    if isinstance(document, dict) and isinstance(document.get("log_history"), list):
        return [_trainer(path, document)]
    if isinstance(document, list):
        return [_rows(path, [row for row in document if isinstance(row, dict)])]
    if isinstance(document, dict):
        if not any(is_training_name(name) for name in document):  # {"history": {"loss": [...]}, "params": {...}}
            document = _only_table(document) or document
        return [_history(path, document)]
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
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
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


def _trainer(path: Path, document: Mapping[str, Any]) -> Log:
    columns = Columns(path)
    for row in document["log_history"]:
        if isinstance(row, dict) and "train_runtime" not in row:  # the last row sums up the training
            columns.add(flat(row))
    if not columns.rows:
        raise LogError(f"{path}: log_history is empty; the Trainer logs every logging_steps")
    config = {key: document[key] for key in _CONFIG if number(document.get(key)) is not None}
    return Log(path, _TRAINER, columns.series(), columns.rows, config=config, rows_are_means=True)


def _rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Log:
    columns = Columns(path)
    for row in rows:
        columns.add(flat(row))
    if not columns.rows:
        raise LogError(f"{path}: no rows of a training in this JSON document; is this the right file?")
    return Log(path, FORMAT, columns.series(), columns.rows)


def _only_table(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The dictionary of columns within a document that is a wrapper around it."""
    for value in document.values():
        if isinstance(value, dict) and any(isinstance(column, dict | list) for column in value.values()):
            return value
    return None


def _history(path: Path, document: Mapping[str, Any]) -> Log:
    """Columns of values: {"loss": [...]}, or {"loss": {"0": ...}} as pandas writes them."""
    table: dict[str, list[float | None]] = {}
    for name, values in document.items():
        if isinstance(values, dict):
            values = list(values.values())  # noqa: PLW2901  the keys are the rows
        if isinstance(values, list) and values and all(isinstance(value, int | float | str | None) for value in values):
            table[name] = [number(value) for value in values]
    measured = [len(values) for name, values in table.items() if is_training_name(name)]
    if not measured:
        raise LogError(f"{path}: no list of losses in this JSON document; is this the right file?")
    rows: list[dict[str, float]] = [{} for _ in range(max(measured))]
    for name, values in table.items():
        # A list that is shorter has its values once in several epochs (validation_freq): at the end of each.
        every = len(rows) / len(values)
        for number_of, value in enumerate(values[: len(rows)], 1):
            if value is not None:
                rows[max(0, round(number_of * every) - 1)][name] = value
    columns = Columns(path)
    for row in rows:
        columns.add(row)
    return Log(path, "Keras history", columns.series(), columns.rows, rows_are_means=True)
