"""run.json and the lines of events.jsonl: typed records to JSON and back.

JSON has no NaN: non-finite numbers are the strings "NaN", "Infinity" and "-Infinity". What the user's configuration
holds beyond JSON becomes text.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from lossdoctor.runs.events import Event
from lossdoctor.runs.info import ModelInfo, RunInfo

__all__ = ["decode_event", "decode_info", "encode_event", "encode_info", "plain"]

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_FREE_FORM = ("config", "git", "hardware")
_DEPTH = 20
"""Levels of nesting kept in a configuration; what is deeper (or contains itself) becomes text."""
_TEXT = 2_000
"""Characters kept of the text of an object that JSON cannot hold."""
_WORD = 2**63

_event_decoder = msgspec.json.Decoder(Event, strict=False)  # not strict: numbers may be strings, see above
_info_decoder = msgspec.json.Decoder(RunInfo, strict=False)


def encode_info(info: RunInfo) -> bytes:
    """The text of run.json, indented for people. Never fails for any configuration."""
    # Read field by field: the owner of a mutable RunInfo may change it from another thread.
    fields = {name: getattr(info, name) for name in info.__struct_fields__}
    model = _encoded_model(fields.pop("model"))
    return msgspec.json.format(msgspec.json.encode(plain(fields) | {"model": model}), indent=2) + b"\n"


def decode_info(data: bytes) -> RunInfo:
    """What run.json says.

    Raises:
        ValueError: It is not JSON or not of this shape.
    """
    try:
        info = _info_decoder.decode(data)
        for name in _FREE_FORM:
            setattr(info, name, _restored(getattr(info, name)))
    except RecursionError:
        message = "nested too deeply"
        raise ValueError(message) from None
    return info


def encode_event(event: Event) -> bytes:
    """One line of events.jsonl, with its newline."""
    return msgspec.json.encode(plain(event)) + b"\n"


def decode_event(line: bytes) -> Event:
    """What a line of events.jsonl says.

    Raises:
        ValueError: It is torn, or no event that is known here.
    """
    try:
        event: Event = _event_decoder.decode(line)
    except RecursionError:
        message = "nested too deeply"
        raise ValueError(message) from None
    return event


def plain(value: object, depth: int = 0) -> Any:
    """The value as JSON can hold it: dicts, lists, text, numbers; anything else as text.

    >>> plain({"lr": float("inf"), 1: (2, None)})
    {'lr': 'Infinity', '1': [2, None]}
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float | np.floating):
        return _number(float(value))
    if isinstance(value, int | np.integer):
        return int(value) if -_WORD <= value < _WORD else str(int(value))
    if isinstance(value, msgspec.Struct):
        value = _fields(value)
    if isinstance(value, Mapping) and depth < _DEPTH:
        return {plain(_text(key)): plain(item, depth + 1) for key, item in list(value.items())}
    if isinstance(value, list | tuple | set | frozenset) and depth < _DEPTH:
        return [plain(item, depth + 1) for item in list(value)]
    text = value if isinstance(value, str) else _text(value)[:_TEXT]
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _encoded_model(model: ModelInfo) -> Any:
    """The model as JSON, the fast way where possible: it may have thousands of layers and is written often."""
    try:
        return msgspec.Raw(msgspec.json.encode(model)) if math.isfinite(model.dropout) else plain(model)
    except UnicodeEncodeError:
        return plain(model)


def _fields(record: msgspec.Struct) -> dict[str, object]:
    """The fields of a record with its tag, if it has one."""
    config = record.__struct_config__
    tag: dict[str, object] = {config.tag_field: config.tag} if config.tag_field else {}
    return tag | {name: getattr(record, name) for name in record.__struct_fields__}


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001  a stranger's __str__ must not cost the user the recording
        return f"<{type(value).__name__}>"


def _restored(value: Any) -> Any:
    """The value with the names of non-finite numbers as numbers again."""
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    if isinstance(value, dict):
        return {key: _restored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_restored(item) for item in value]
    return value
