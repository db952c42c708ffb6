"""What the words before a number say: a quantity, a place in the training, whether it is of training or validation."""

import re
from dataclasses import dataclass
from typing import Literal

from lossdoctor.runs.printed.words import (
    AVERAGES,
    BATCHES,
    CUES,
    DANGLING,
    EPOCHS,
    FILLERS,
    IGNORED,
    MEASURES,
    NOT_MEASURED,
    STEPS,
    TOTALS,
    UNITS,
    VERBS,
)

__all__ = ["Gap", "Role", "axis_of", "cue_in", "gap_of", "gap_of_name", "is_metric", "split_of"]

Role = Literal["", "epoch", "step", "batch", "total", "average", "metric", "side", "other"]

_METRIC = re.compile(f"(?:^|[^a-z])(?:{'|'.join(MEASURES)})(?:$|[^a-z])")
_SIDE = re.compile(
    r"^(?:lr|learning_rate|base_lr|lr_\d|grad_?norm|gnorm|norm|loss_scale|scale|wd|mom|momentum|mfu|memory|mem|tps|wps"
    r"|ups|time|dt|speed|data|data_time|batch_time|iter_time|elapsed|tok/s(?:ec)?|ms/batch|throughput|lr\w{0,12})$"
)
_DELIMITERS = re.compile(r"[,;|\t│┃\]}]+|[:=]\s|\s-+\s|\s{2,}|\)\s|[>→•]")
_WORD = re.compile(r"[A-Za-z_@#Δ][\w@./%+\-#]*|[*#&+-]+")
_OWN_SPLIT = re.compile(
    r"^(train|training|tr|val|valid|vali|validation|eval|evaluation|dev|test)[_/.\-]"
    r"|[_/.\-](train|val|valid|validation|eval|dev|test)$",
    re.IGNORECASE,
)
_REMARK = re.compile(r"\s?\(([A-Za-z/ ]{1,16})\)$")  # "time (ms): ", "Epoch(train) [", "loss (val): "
_LEVEL = re.compile(r"^\W{0,4}(?:INFO|DEBUG|WARNING|ERROR):[\w.]{0,80}:")  # what logging.basicConfig puts first
_TIME = re.compile(r"(?:^|_)time(?:_|$)")  # "time cost", "cost time"
_LOSS_PPL = re.compile(r"_loss_(?:PPL|ppl)$")  # Megatron's "lm loss PPL" is no loss
_TIME_COST = re.compile(r"(batch|reader|data|iter)_cost$")  # Paddle's seconds a batch
_SOURCE = re.compile(r"[A-Za-z_]\w{0,60}(?:\.\w{1,60}){1,8}$")
_WRAPPERS = ("tensor", "array", "Array", "float32", "float64", "float16", "bfloat16")
_TAG = re.compile(r"[A-Za-z_][\d_]")
_TWO = 2
_MOST_WORDS = 5
_LONGEST = 400


@dataclass(frozen=True, slots=True)
class Gap:
    """What stands before a number: the quantity's name as printed, the split it is of, and what role it has."""

    name: str = ""
    split: str = ""
    role: Role = ""
    position: bool = False
    """Whether a number without a name may be a place in the training: "[10/100]", "| 200/ 2983 batches"."""
    bare: bool = False
    """Whether the split is all there is: "0 val 10.93"."""
    own: bool = False
    """Whether the name itself says the split: "val_loss"."""
    enclosed: bool = False
    """Whether the number stands in parentheses: where a measurement comes before it, what that was made of."""
    heading: bool = False
    """Whether the split was said before the name, and so of all that follows: "[Epoch 3] validation: loss 2"."""


def split_of(name: str) -> str:
    """The split a joined name says, else nothing.

    >>> split_of("valid_loss"), split_of("loss"), split_of("loss_test")
    ('val', '', 'test')
    """
    match = _OWN_SPLIT.search(name)
    return CUES[(match[1] or match[2]).lower()] if match else ""


def cue_in(text: str) -> str:
    """The split that the first such word of a text says, else nothing.

    >>> cue_in("***** Running Evaluation *****"), cue_in("[train_inner][INFO]")
    ('val', '')
    """
    return next((CUES[word] for word in re.findall(r"[a-z_]+", text.lower()) if word in CUES), "")


def is_metric(name: str) -> bool:
    """Whether a name is one of a loss or of a measure of quality.

    >>> is_metric("lm_loss"), is_metric("Acc@1"), is_metric("closs"), is_metric("glossary"), is_metric("memory")
    (True, True, True, False, False)
    """
    low = name.lower()
    return _METRIC.search(low) is not None and _TIME.search(low) is None


def axis_of(name: str) -> Role:
    """Whether a name counts epochs, steps, or batches that may begin anew in each epoch; nothing if none.

    >>> axis_of("Epoch"), axis_of("valid_num_updates"), axis_of("batch_size")
    ('epoch', 'step', '')
    """
    name = name.lower()
    match = re.match(r"(?:train|valid|val|eval|test)[_/](?!step)", name)
    name = name[match.end() :] if match else name
    if name in EPOCHS:
        return "epoch"
    return "step" if name in STEPS else "batch" if name in BATCHES else ""


_known: dict[str, Gap] = {}
_MOST_KNOWN = 20_000


def gap_of(text: str) -> Gap:
    """What a piece of text before a number says; the answers are kept."""
    gap = _known.get(text)
    if gap is None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        gap = _known[text] = _gap_of(text)
    return gap


def _gap_of(text: str) -> Gap:
    if len(text) > _LONGEST:
        text = text[-_LONGEST:]
    core = text.rstrip(" \t([{=:'\"~≈$")
    remark = _REMARK.search(core)
    if remark and text != core:
        core = core[: remark.start()] + (f" {remark[1]}" if remark[1].lower() in CUES else "")
    for wrapper in _WRAPPERS:
        if core.endswith(wrapper) and core != text:
            core = core.removesuffix(wrapper).rstrip(" \t.([{=:'\"")
            core = core.removesuffix("torch").removesuffix("np").rstrip(" \t([{=:'\"")
            break
    stripped = core.strip()
    opener = text[len(core) :].strip()
    if stripped in {"/", "]/", ")/"}:
        return Gap(role="total")
    if not stripped and opener == "(":
        return Gap(role="average")
    if not stripped or stripped[-1] in "|,;]>→)}·•" or core.endswith((" -", "\t-")):
        # Nothing between this number and the one before, or the end of something else: a place, or a list's next.
        return Gap(position=True, split=_leading(stripped), enclosed=opener == "(", heading=True)
    *leading, key = [piece for piece in _DELIMITERS.split(core) if piece.strip()] or [""]
    split = next((cue for piece in reversed(leading) if (cue := _leading(piece))), "")
    source = _SOURCE.search(core) if text[-1:] == ":" else None
    if source is not None and not is_metric(source[0]):
        return Gap(split=split, heading=True)  # trainer.py:253
    return gap_of_name(key, split=split, joined=text.endswith("=") and "= " not in text)


def _leading(piece: str) -> str:
    """The split that a heading says: "[Epoch 3] validation:", "| valid on 'valid' subset |"."""
    words = [word.lower().rstrip(".") for word in _WORD.findall(piece)]
    return next((CUES[word] for word in words if word in CUES), "") if len(words) <= _MOST_WORDS else ""


def gap_of_name(key: str, *, split: str = "", joined: bool = False) -> Gap:
    """What the words right before a number say; if `joined` ("=" follows without a space) the last word is all."""
    words = _WORD.findall(_LEVEL.sub("", key))
    while words and (words[0].lower() in UNITS or "/s" in words[0]) and len(words) > 1:
        words = words[1:]
    if joined and len(words) > 1:
        words = [word for word in words[:-1] if word.lower() in CUES or word.lower() == "time"] + words[-1:]
    words = [word.rstrip(".") or word for word in words]  # "Val. Loss", "Ep. 1"
    lower = [word.lower() for word in words]
    told = bool(lower) and lower[-1] in VERBS
    if lower and lower[-1] in DANGLING and not any(map(axis_of, lower)):
        return Gap(split=split, heading=True)
    if any(word in NOT_MEASURED for word in lower) or len(words) > _MOST_WORDS + 1 or not words:
        return Gap(split=split, heading=True)
    cue = next((CUES[word] for word in lower if word in CUES), "")
    kept = [word for word in words if word.lower() not in CUES and word.lower() not in FILLERS]
    if lower == ["average"] or (len(kept) == 1 and kept[0].lower() in AVERAGES and not cue):
        return Gap(role="average")
    if not kept:
        return Gap(split=cue or split, position=True, bare=bool(cue), heading=True)
    if len(kept) > _MOST_WORDS - 1:
        return Gap(split=split, heading=True)
    cleaned = (word.strip(".-+#*") or word for word in kept)
    name = "_".join(
        word.lower() if word == word.capitalize() and "_" not in word else word for word in cleaned
    )  # "Loss"; not "SmoothL1"
    name = _LOSS_PPL.sub("_ppl", name.removesuffix("_value") if name.endswith("loss_value") else name)
    name = _TIME_COST.sub(r"\1_time", "grad_norm" if name.lower() == "gnorm" else name)
    role: Role = axis_of(name)
    if not role and ("at" in lower or all(word.lower() in TOTALS for word in kept[:-1])):
        role = axis_of(kept[-1])  # "end of epoch", "global training step", "loss at iteration"
    if not role and len(kept) == _TWO and _TAG.search(kept[0]) and axis_of(kept[1]) == "epoch":
        role = "epoch"  # "ResNet_18 Epoch 3": a model's name before it
    low = name.lower()
    if low in IGNORED or low.endswith(".py") or low.startswith("best_"):
        return Gap(split=split, heading=True)
    if not role:
        role = "side" if _SIDE.match(low) else "metric" if is_metric(low) else "other"
    if told and role not in {"metric", "side", "epoch", "step", "batch"}:
        return Gap(split=split, heading=True)
    own = bool(_OWN_SPLIT.search(name))
    return Gap(
        name=name, split=cue or split, role=role, own=own, heading=bool(split) or (bool(cue) and role == "epoch")
    )
