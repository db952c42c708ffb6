"""The user's settings: lossdoctor.toml, or [tool.lossdoctor] in pyproject.toml.

    fail_on = "warning"               # never, info, warning, error
    format  = "text"                  # text, json, markdown, junit, html
    rules   = ["training/rules"]      # directories with rule files, relative to this file
    ignore  = ["plateau"]             # rules not to judge by

    [thresholds]
    overfitting.max_lost = 0.2        # as in: lossdoctor analyze --set overfitting.max_lost=0.2

    [remedies]                        # what Monitor(remediate="auto") may do; the keys of lossdoctor.Policy
    actions = ["skip_step", "rewind", "scale_lr"]
    budget  = 4
    snapshots = "disk"                # where copies to go back to are kept: memory, disk, or auto, which is the default
    dry_run = true

    [notify]                          # who is told of findings while a Monitor records; off where there is no address
    webhook = "https://hooks.slack.com/services/..."    # LOSSDOCTOR_WEBHOOK in the environment wins over it

The nearest file at or above the current directory holds; the command line wins over it.
"""

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec

from lossdoctor.errors import ConfigurationError
from lossdoctor.expressions import nearest
from lossdoctor.rule import ACTIONS

__all__ = ["FAIL_ON", "FORMATS", "Configuration", "FailOn", "Format", "find_configuration", "parse_setting"]

FailOn: TypeAlias = Literal["never", "info", "warning", "error"]
Format: TypeAlias = Literal["text", "json", "markdown", "junit", "html"]
Snapshots: TypeAlias = Literal["auto", "memory", "disk"]

FAIL_ON: tuple[FailOn, ...] = get_args(FailOn)
FORMATS: tuple[Format, ...] = get_args(Format)
SNAPSHOTS: tuple[Snapshots, ...] = get_args(Snapshots)

_FILE = "lossdoctor.toml"
_PROJECT_FILE = "pyproject.toml"


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a diagnosis unless the command line says otherwise.

    `rules` are absolute directories. `thresholds` maps "rule.threshold" to a number. `path` is the file all this comes
    from, None where there is none.
    """

    fail_on: FailOn = "error"
    format: Format = "text"
    rules: tuple[Path, ...] = ()
    ignore: tuple[str, ...] = ()
    thresholds: Mapping[str, float] = {}
    remedies: Mapping[str, Any] = {}
    webhook: str = ""
    path: Path | None = None


class _Remedies(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The keys of the table [remedies]: arguments of Policy that can be written in a file."""

    actions: list[str] | msgspec.UnsetType = msgspec.UNSET
    budget: Annotated[int, msgspec.Meta(ge=0)] | msgspec.UnsetType = msgspec.UNSET
    cool_down: Annotated[int, msgspec.Meta(ge=0)] | msgspec.UnsetType = msgspec.UNSET
    generations: Annotated[int, msgspec.Meta(ge=2)] | msgspec.UnsetType = msgspec.UNSET
    snapshots: Snapshots | msgspec.UnsetType = msgspec.UNSET
    best_by: str | msgspec.UnsetType = msgspec.UNSET
    higher_is_better: bool | msgspec.UnsetType = msgspec.UNSET
    trial_steps: Annotated[int, msgspec.Meta(ge=16)] | msgspec.UnsetType = msgspec.UNSET
    dry_run: bool | msgspec.UnsetType = msgspec.UNSET


class _Notify(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The keys of the table [notify]."""

    webhook: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """The keys of the file."""

    fail_on: FailOn = "error"
    format: Format = "text"
    rules: list[str] = []
    ignore: list[str] = []
    thresholds: dict[str, Any] = {}
    remedies: _Remedies = _Remedies()
    notify: _Notify = _Notify()


def find_configuration(start: Path | None = None) -> Configuration:
    """The settings for work in directory `start` (default: the current one); the defaults if there is no file.

    A pyproject.toml without [tool.lossdoctor] is passed over. Raises ConfigurationError naming file and key.
    """
    start = (start or Path.cwd()).resolve()
    for directory in (start, *start.parents):
        own = directory / _FILE
        if own.is_file():
            return _configuration(own, _read(own), "")
        project = directory / _PROJECT_FILE
        if project.is_file():
            tables = _read(project).get("tool", {})
            if isinstance(tables, dict) and "lossdoctor" in tables:
                return _configuration(project, tables["lossdoctor"], "tool.lossdoctor.")
    return Configuration()


def parse_setting(text: str) -> tuple[str, float]:
    """A threshold from the command line.

    >>> parse_setting("overfitting.max_lost=0.2")
    ('overfitting.max_lost', 0.2)
    """
    key, equals, value = text.partition("=")
    if not equals or not all(part.strip() for part in key.split(".", 1)) or "." not in key:
        raise ConfigurationError(f"--set {text}: expected RULE.THRESHOLD=NUMBER, e.g. overfitting.max_lost=0.2")
    try:
        return key.strip(), _number(float(value))
    except ValueError:
        raise ConfigurationError(f"--set {text}: '{value}' is not a number") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from None


def _configuration(path: Path, data: object, table: str) -> Configuration:
    try:
        file = msgspec.convert(data, _File)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: {_readable(str(error), data, table)}") from None
    return Configuration(
        fail_on=file.fail_on,
        format=file.format,
        rules=tuple(_directory(path, table, name) for name in file.rules),
        ignore=tuple(file.ignore),
        thresholds=_thresholds(path, table, file.thresholds),
        remedies=_remedies(path, table, file.remedies),
        webhook=file.notify.webhook,
        path=path,
    )


def _directory(path: Path, table: str, name: str) -> Path:
    directory = path.parent / name
    if not directory.is_dir():
        raise ConfigurationError(f"{path}: {table}rules: no such directory: {directory}")
    return directory


def _thresholds(path: Path, table: str, tables: Mapping[str, Any]) -> dict[str, float]:
    """Thresholds as "rule.threshold", whether the file nests them or quotes the dotted key."""
    found: dict[str, float] = {}
    for rule, value in tables.items():
        nested = isinstance(value, dict)
        inner = {f"{rule}.{name}": number for name, number in value.items()} if nested else {rule: value}
        for key, number in inner.items():
            place = f"{path}: {table}thresholds.{key}"
            if key.count(".") != 1:
                raise ConfigurationError(f"{place}: expected RULE.THRESHOLD = NUMBER, e.g. overfitting.max_lost = 0.2")
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise ConfigurationError(f"{place}: expected a number, got {number!r}")
            try:
                found[key] = _number(float(number))
            except (ValueError, OverflowError):
                raise ConfigurationError(f"{place}: expected a number, got {number!r}") from None
    return found


def _remedies(path: Path, table: str, given: _Remedies) -> dict[str, Any]:
    """What the table sets; what it does not mention is left out."""
    found = {name: getattr(given, name) for name in _Remedies.__struct_fields__}
    found = {name: value for name, value in found.items() if value is not msgspec.UNSET}
    for action in found.get("actions", ()):
        if action not in ACTIONS:
            raise ConfigurationError(
                f"{path}: {table}remedies.actions: there is no action '{action}'{nearest(action, ACTIONS)}"
            )
    return found


def _number(value: float) -> float:
    if math.isnan(value):
        raise ValueError(value)
    return value


def _readable(error: str, data: object, table: str) -> str:
    """The message of msgspec as "key: what is wrong; the remedy"."""
    message, _, place = error.partition(" - at `$")
    key = place.strip("`.")
    if field := re.search(r"unknown field `(.+)`", message):
        known: Sequence[str] = {"remedies": _Remedies, "notify": _Notify}.get(key, _File).__struct_fields__
        hint = nearest(field[1], known) or f"; known keys: {', '.join(known)}"
        where = f"{table}{key}".rstrip(".")
        return f"{where}{': ' if where else ''}unknown key '{field[1]}'{hint}"
    choices = {"fail_on": FAIL_ON, "format": FORMATS, "remedies.snapshots": SNAPSHOTS}.get(key)
    value: Any = data
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if choices and isinstance(value, str):
        return f"{table}{key}: unknown value '{value}'{nearest(value, choices)}; one of {', '.join(choices)}"
    return f"{table}{key}".rstrip(".") + f": {message[:1].lower()}{message[1:]}"
