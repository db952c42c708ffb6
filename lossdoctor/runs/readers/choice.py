"""Which columns of a log are the training loss, the validation loss and the rest of what can be judged."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossdoctor.errors import LogError, nearest
from lossdoctor.runs.readers.aliases import QUALITY
from lossdoctor.runs.readers.log import Log, Series
from lossdoctor.runs.readers.names import Name, is_reward, understood

__all__ = ["AXES", "Choice", "chosen", "is_of_agent", "wanted"]

AXES = frozenset({"step"})
"""What --map can set beside signals: the column that counts."""

_SPAN = 0.5
"""A column that stands on less than this share of the rows between the first and last of the longest is a fragment."""
_PERCENT = 1.5
"""An accuracy beyond this is in percent."""
_SEVERAL = 3
_COMPANIONS = frozenset({"grad_norm", "learning_rate"})
"""A training loss that stands beside one of these can be judged together with it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A column to judge: its signal, its values, and what it was made of, in words."""

    signal: str
    series: Series
    origin: str
    clock: str = "step"
    noise: int = 0


def wanted(log: Log, mapping: Mapping[str, str], *, strict: bool = True) -> dict[str, str]:
    """Those entries of the user's mapping whose columns the log has, spelled as there.

    Raises LogError if it lacks one of them and `strict` is set.
    """
    by_name = {name.strip().lower(): name for name in reversed(list(log.series))}
    found: dict[str, str] = {}
    for signal, column in mapping.items():
        name = by_name.get(column.strip().lower(), "")
        if column and not name and strict:
            hint = nearest(column, log.series) or f"; columns: {_listed(log.series)}"
            raise LogError(f"{log.path}: --map {signal}={column}: no column '{column}'{hint}")
        if name or not column:
            found[signal] = name
    return found


def chosen(log: Log, mapping: Mapping[str, str]) -> list[Choice]:
    """The columns of a log that have a meaning, best first for each signal. `mapping` goes before any guess."""
    named = understood(log.series)
    found = [*_losses(log, named, mapping), *_accuracies(log, named), *_technical(log, named)]
    kept = [choice for choice in found if choice.signal not in mapping]
    for signal, column in mapping.items():
        if column and signal not in AXES:
            clock = "evaluation" if signal.startswith("val_") else "step"
            kept.append(Choice(signal, log.series[column], f"{column} (--map)", clock))
    return kept


def is_of_agent(log: Log) -> bool:
    """Whether a log is of an agent, which makes its own data: its losses follow a target that moves."""
    names = {name.strip().lower() for name in log.series}
    plays = bool(names & {"episode", "episodes", "game", "games"}) and bool(names & {"return", "score"})
    return plays or any(is_reward(name) for name in log.series)


def _listed(names: Iterable[str]) -> str:
    several = list(names)
    return ", ".join(several[:12]) + (", …" if len(several) > 12 else "")  # noqa: PLR2004  one line


def _of(named: Mapping[str, Name], role: str, splits: Sequence[str]) -> list[str]:
    return [name for name, known in named.items() if known.role == role and known.split in splits]


def _validation_split(log: Log, named: Mapping[str, Name]) -> str:
    """Validation, or the test split where nothing was validated on."""
    for role in ("loss", "accuracy", "perplexity"):
        for split in ("val", "test"):
            if any(len(log.series[name].values) > 1 for name in _of(named, role, [split])):
                return split
    return "val"


def _losses(log: Log, named: Mapping[str, Name], mapping: Mapping[str, str]) -> list[Choice]:
    split = _validation_split(log, named)
    train = _of(named, "loss", ["", "train"])
    if any(named[name].split == "train" and len(log.series[name].values) > 1 for name in train) and not any(
        named[name].split == "" and not named[name].part for name in train
    ):
        train = _of(named, "loss", ["train"])
    val = _of(named, "loss", [split])
    if is_of_agent(log):
        own = _distinct(log, named, train)
        return [Choice(f"train_loss_{named[name].part or 'agent'}", log.series[name], name) for name in own]
    found, parts = _total(log, named, train, "train_loss")
    if not found and not parts and "train_loss" not in mapping:
        found = _from_perplexity(log, _of(named, "perplexity", ["", "train"]), "train_loss")
    if not (train or val or found):
        return [*_error(log, named, "train", "train_loss"), *_error(log, named, split, "val_loss")]
    of_val, _ = _total(log, named, val, "val_loss", like=parts)
    if not of_val:
        of_val = _from_perplexity(log, _of(named, "perplexity", [split]), "val_loss")
    components = [
        Choice(f"train_loss_{named[name].part}", log.series[name], name)
        for name in parts
        if not found or found[0].origin != name
    ]
    return [*found, *components, *of_val]


def _total(
    log: Log, named: Mapping[str, Name], names: Sequence[str], signal: str, like: Sequence[str] = ()
) -> tuple[list[Choice], list[str]]:
    """The total of some losses, and the columns of its parts.

    It is a column without a part's name, or the only part, or the sum of the parts where they stand side by side.
    Losses that play against each other have no total.
    """
    clock = "step" if signal == "train_loss" else "evaluation"
    whole = [name for name in names if not named[name].part]
    parts = [name for name in names if named[name].part]
    if whole:
        name = _best(log, named, whole)
        return [Choice(signal, log.series[name], name, clock, named[name].noise)], _beside(log, parts, log.series[name])
    if like:
        same = {named[name].part for name in like}
        parts = [name for name in parts if named[name].part in same] or parts
    if not parts or any(named[name].plays_against for name in parts):
        return [], parts
    if len(parts) == 1:
        return [Choice(signal, log.series[parts[0]], parts[0], clock)], []
    parts = _distinct(log, named, parts)
    first = max((log.series[name] for name in parts), key=lambda series: len(series.at))
    parts = _beside(log, parts, first)
    total = np.sum([log.series[name].values for name in parts], axis=0)
    return [Choice(signal, Series(total, first.at), " + ".join(parts), clock)], parts if len(parts) > 1 else []


def _distinct(log: Log, named: Mapping[str, Name], parts: Sequence[str]) -> list[str]:
    """One column a part: the step's and the epoch's mean of a loss are not two losses."""
    by_part: dict[str, list[str]] = {}
    for name in parts:
        by_part.setdefault(named[name].part, []).append(name)
    return [_best(log, named, names) for names in by_part.values()]


def _beside(log: Log, names: Sequence[str], column: Series) -> list[str]:
    return [name for name in names if np.array_equal(log.series[name].at, column.at)]


def _best(log: Log, named: Mapping[str, Name], names: Sequence[str]) -> str:
    """The column that is on most of the log, with most points, and the plainest name."""
    series = log.series
    longest = max(_span(series[name]) for name in names)
    most = max(len(series[name].at) for name in names)

    beside = np.concatenate(
        [np.empty(0, np.int64), *(series[name].at for name, known in named.items() if known.role in _COMPANIONS)]
    )

    def merit(name: str) -> tuple[bool, bool, bool, int, int]:
        column = series[name]
        return (
            _span(column) >= _SPAN * longest,
            len(column.at) * 2 > most,
            bool(np.isin(column.at, beside).mean() > _SPAN),
            -named[name].noise,
            len(column.at),
        )

    return max(names, key=merit)


def _span(series: Series) -> int:
    return int(series.at[-1] - series.at[0]) + 1 if len(series.at) else 0


def _from_perplexity(log: Log, names: Sequence[str], signal: str) -> list[Choice]:
    """The logarithm of a perplexity is the loss it was made of."""
    clock = "step" if signal == "train_loss" else "evaluation"
    for name in names:
        series = log.series[name]
        if len(series.values) > 1:
            with np.errstate(divide="ignore", invalid="ignore"):
                return [Choice(signal, Series(np.log(series.values), series.at), f"log({name})", clock)]
    return []


def _error(log: Log, named: Mapping[str, Name], split: str, signal: str) -> list[Choice]:
    """Where no loss was logged, an error of which it can be said that less is better: train_rmse and val_rmse."""
    names = [
        name for name in _of(named, "metric", [split]) if named[name].direction < 0 and len(log.series[name].at) > 1
    ]
    clock = "step" if signal == "train_loss" else "evaluation"
    return [Choice(signal, log.series[name], name, clock) for name in names[:1]]


def _quality(log: Log, named: Mapping[str, Name], split: str) -> list[Choice]:
    """Where a validation has neither a loss nor an accuracy, a share that is better the higher it is: dice, mAP, F1."""
    names = [name for name in _of(named, "metric", [split]) if named[name].direction > 0]
    shares = [name for name in names if len(log.series[name].at) > 1 and _is_share(log.series[name].values)]
    order = {word: place for place, word in enumerate(QUALITY)}
    shares.sort(key=lambda name: order.get(named[name].part.split("_")[0], len(order)))
    return [Choice("val_accuracy", log.series[name], name, "evaluation") for name in shares[:1]]


def _is_share(values: npt.NDArray[np.float64]) -> bool:
    """Whether values may be shares of one, or percentages."""
    return bool(np.isfinite(values).all() and values.min() >= 0 and values.max() <= 100)  # noqa: PLR2004


def _accuracies(log: Log, named: Mapping[str, Name]) -> list[Choice]:
    found = []
    split = _validation_split(log, named)
    unnamed = _is_of_validation(log, named, split)
    for signal, splits, clock in (
        ("train_accuracy", ["train"] if unnamed else ["train", ""], "step"),
        ("val_accuracy", [split, ""] if unnamed else [split], "evaluation"),
    ):
        names = [name for split in splits for name in _of(named, "accuracy", [split]) if len(log.series[name].at)]
        plain = [name for name in names if not named[name].part] or (names if len(names) == 1 else [])
        if plain:
            name = _best(log, named, plain)
            found.append(Choice(signal, log.series[name], name, clock))
    if not found and not any(known.role in {"loss", "perplexity"} and known.split == split for known in named.values()):
        found = _quality(log, named, split)
    largest = [float(np.nanmax(np.nan_to_num(choice.series.values, posinf=0.0))) for choice in found]
    if len(found) > 1 and (largest[0] > _PERCENT) != (largest[1] > _PERCENT):
        found = [
            choice if high > _PERCENT else _in_percent(choice) for choice, high in zip(found, largest, strict=True)
        ]
    return found


def _is_of_validation(log: Log, named: Mapping[str, Name], split: str) -> bool:
    """Whether an accuracy that is of no split by its name is of validation, as beside train_loss and valid_loss.

    So fastai and the Trainer print it: the split is said of the losses, as there are two; and there is one accuracy,
    where the loss of the validation is.
    """
    losses = {known.split for known in named.values() if known.role == "loss"}
    if losses != {"train", split} or {known.split for known in named.values() if known.role == "accuracy"} != {""}:
        return False
    validated = np.concatenate([log.series[name].at for name in _of(named, "loss", [split])])
    return all(np.isin(log.series[name].at, validated).all() for name in _of(named, "accuracy", [""]))


def _in_percent(choice: Choice) -> Choice:
    series = Series(choice.series.values * 100, choice.series.at)
    return Choice(choice.signal, series, f"{choice.origin} x 100", choice.clock)


def _technical(log: Log, named: Mapping[str, Name]) -> list[Choice]:
    found = []
    rates = [name for name in _of(named, "learning_rate", ["", "train"]) if len(log.series[name].at)]
    if rates:
        found.append(_learning_rate(log, rates))
    for role in ("grad_norm", "loss_scale", "samples_per_second", "data_wait", "step_time"):
        names = [name for name in _of(named, role, ["", "train"]) if len(log.series[name].at) > 1]
        if role == "step_time" and not names and "data_time" in log.series and "time" in log.series:
            names = ["time"]  # Detectron2 and MMDetection: seconds an iteration
        if names:
            name = _best(log, named, names)
            series, origin = log.series[name], name
            if role in {"data_wait", "step_time"}:
                if _accumulates(series):
                    continue
                if _is_in_milliseconds(name):
                    series, origin = Series(series.values / 1_000, series.at), f"{name} / 1000"
            found.append(Choice(role, series, origin))
    return found


def _learning_rate(log: Log, names: Sequence[str]) -> Choice:
    """The rate of the only group, the larger of two; of several the middle one, as one may warm down from above."""
    first = max((log.series[name] for name in names), key=lambda series: len(series.at))
    names = _beside(log, names, first)
    if len(names) == 1:
        return Choice("learning_rate", first, names[0])
    values = np.array([log.series[name].values for name in names])
    combine, word = (np.median, "median") if len(names) >= _SEVERAL else (np.max, "max")
    return Choice("learning_rate", Series(combine(values, axis=0), first.at), f"{word}({_listed(names)})")


def _is_in_milliseconds(name: str) -> bool:
    return "ms" in name.lower().replace("/", " ").replace("_", " ").replace("(", " ").replace(")", " ").split() or (
        name.lower() == "step_avg"
    )


def _accumulates(series: Series) -> bool:
    """Whether a time is counted from the start of the training."""
    values = series.values[np.isfinite(series.values)]
    return len(values) > _SEVERAL and bool((np.diff(values) > 0).all()) and values[-1] > _SEVERAL * values[0]
