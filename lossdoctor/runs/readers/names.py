"""What the name of a logged column says: of which split of the data it is, and what it measures."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from lossdoctor.directions import higher_is_better
from lossdoctor.runs.languages import in_english
from lossdoctor.runs.readers.aliases import (
    ACCURACY,
    ACCURACY_KINDS,
    BUILT_ON_EACH_OTHER,
    EPOCH_NAMES,
    LOSS,
    NOISE,
    NOT_MEASURES,
    OF_PREFERENCES,
    REWARDS,
    SPLITS,
    STEP_NAMES,
)

__all__ = ["Name", "is_reward", "is_training_name", "understand", "understood", "words_of"]

_WORD = re.compile(r"[a-z]+|\d+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_LONGEST = 300
_LETTERS = {"t": "train", "v": "val"}
_PER = re.compile(
    r"(samples?|examples?|ima?ge?s?|sequences|seqs|items)[\s_]*(/|_?per_?|\s+per\s+)[\s_]*s(ec(ond)?s?)?\b"
)
_BARE_SPEED = frozenset({"samples_sec", "imgs_sec", "images_sec", "ips", "speed", "throughput", "throughput_examples"})


@dataclass(frozen=True, slots=True)
class Name:
    """What is understood of a name.

    `role` is "loss", "accuracy", "perplexity", "learning_rate", "grad_norm", "samples_per_second", "step_time",
    "data_wait", "loss_scale", "time", "step", "epoch", "metric" (with `direction` +1 where higher is better, -1 where
    lower), or empty. `split` is "train", "val", "test" or empty. `part` is what remains of the name of a loss or an
    accuracy: empty for the total, "box" for `train/box_loss`. `noise` is the weight of words without meaning.
    """

    role: str = ""
    split: str = ""
    part: str = ""
    noise: int = 0
    direction: int = 0

    @property
    def plays_against(self) -> bool:
        """Whether it is the loss of one player of a game, as of a GAN: no part of a sum."""
        return not BUILT_ON_EACH_OTHER.isdisjoint(self.part.split("_"))


def words_of(name: str) -> list[str]:
    """The words of a name.

    >>> words_of("valLoss"), words_of("metrics/mAP50(B)")
    (['val', 'loss'], ['metrics', 'm', 'ap', '50', 'b'])
    """
    return _WORD.findall(_HUMP.sub(" ", name[:_LONGEST]).lower())


@lru_cache(maxsize=4_096)
def understand(name: str) -> Name:
    """What a column's name says.

    >>> understand("train/box_loss").part, understand("eval_loss").split, understand("lr-AdamW").role
    ('box', 'val', 'learning_rate')
    """
    name = in_english(name[:_LONGEST])
    lower = name.strip().lower()
    if lower in STEP_NAMES:
        return Name("step")
    if lower in EPOCH_NAMES:
        return Name("epoch")
    words = words_of(name)
    splits = [SPLITS[word] for word in words if word in SPLITS]
    split = splits[-1] if splits else ""
    left = [word for word in words if word not in SPLITS or word == "trl"]
    if role := _technical(lower, left):
        return Name(role, split)
    noise = sum(NOISE.get(word, 0) for word in left)
    rest = [word for word in left if word not in NOISE]
    if "dataloader" in left:  # one of several sets of the same split: the first is as good as any
        noise, rest = noise + 1, [word for word in rest if word != "idx" and not word.isdigit()]
    return _measure(rest, split, noise, bare=not left and bool(splits))


def understood(names: Iterable[str]) -> dict[str, Name]:
    """What the names of a log's columns say beside each other: T_Loss and V_Loss are of training and of validation.

    >>> [known.split for known in understood(["t_loss", "v_loss"]).values()]
    ['train', 'val']
    """
    named = {name: understand(name) for name in names}
    letters = {name: (words_of(name) or [""])[0] for name in named}
    losses = {letters[name] for name, known in named.items() if known.role == "loss" and not known.split}
    if losses != {*_LETTERS} or any(known.role == "loss" and known.split for known in named.values()):
        return named
    return {
        name: replace(known, split=_LETTERS[letters[name]], part="")
        if known.role and known.part in {"", letters[name]} and letters[name] in _LETTERS
        else known
        for name, known in named.items()
    }


def is_training_name(name: str) -> bool:
    """Whether a column of this name makes a table the log of a training, beside an axis."""
    found = understand(name)
    return found.role in {"loss", "accuracy", "perplexity"} or (found.role == "metric" and found.split != "")


def is_reward(name: str) -> bool:
    """Whether a column is what an agent gained.

    >>> is_reward("rollout/ep_rew_mean"), is_reward("AverageEpRet"), is_reward("rewards/chosen"), is_reward("rew_loss")
    (True, True, False, False)
    """
    words = frozenset(words_of(name))
    if words & (LOSS | OF_PREFERENCES):
        return False
    of_episodes = words & {"ep", "episode", "episodes", "episodic"}
    return bool(words & REWARDS or (of_episodes and words & {"return", "returns", "ret", "score"}))


def _technical(lower: str, words: list[str]) -> str:
    """The role of what is neither a loss nor a metric."""
    has = frozenset(words)
    return _optimization(has, words) or _pace(lower, has, words)


def _optimization(has: frozenset[str], words: list[str]) -> str:
    """The role of what an optimizer does."""
    if {"loss", "scale"} <= has or {"loss", "scaler"} <= has or {"grad", "scale"} <= has:
        return "loss_scale"
    if "gnorm" in has or ("norm" in has and has & {"grad", "gradient", "gradients", "grads"} and _is_whole(words)):
        return "grad_norm"
    if has & {"lr", "lrs"} or {"learning", "rate"} <= has or "learningrate" in has:
        return "learning_rate"
    return ""


def _pace(lower: str, has: frozenset[str], words: list[str]) -> str:
    """The role of what says how fast a training goes."""
    if _PER.search(lower) or lower in _BARE_SPEED:
        return "samples_per_second"
    if has & {"time", "duration", "avg", "ms", "sec", "dt"}:
        if "data" in has and "time" in has:
            return "data_wait"
        of_steps = has & {"step", "iter", "iteration", "batch", "batches"}
        if of_steps and has & {"time", "duration", "ms", "sec"} and not has & {"eta", "eval", "remaining", "loss"}:
            return "step_time"
        if words == ["step", "avg"]:
            return "step_time"
    if lower in {"iter_time", "time/iter", "sec/iter", "s/iter"}:
        return "step_time"
    return "time" if lower in {"_timestamp", "wall_time", "timestamp", "walltime"} else ""


def _is_whole(words: list[str]) -> bool:
    """Whether a gradient's norm is that of all parameters: "grad_norm/layer1.weight" is not."""
    known = {"grad", "gradient", "gradients", "grads", "norm", "global", "total", "l", "2", "0", "mean", "avg", "step"}
    return all(word in known or word in NOISE for word in words)


def _measure(rest: list[str], split: str, noise: int, *, bare: bool) -> Name:
    has = frozenset(rest)
    if bare:  # a column named "train" or "val" and nothing else
        return Name("loss", split, "", 1)
    if not has.isdisjoint(NOT_MEASURES):
        return Name("", split)
    if {"cross", "entropy"} <= has:
        rest = ["ce", *(word for word in rest if word not in {"cross", "entropy"})]
        has = frozenset(rest)
    if "perplexity" in has or "ppl" in has:
        return Name("perplexity", split, "_".join(word for word in rest if word not in {"perplexity", "ppl"}), noise)
    if has & LOSS:
        own = [word for word in rest if word not in LOSS]
        return Name("loss", split, "_".join(own), noise + ("loss" not in has))
    if _is_accuracy(rest):
        own = [word for word in rest if word not in ACCURACY | ACCURACY_KINDS | {"1"}]
        return Name("accuracy", split, "_".join(own), noise)
    return _further(rest, split, noise)


def _further(rest: list[str], split: str, noise: int) -> Name:
    """A measure that is neither the total loss nor the accuracy."""
    joined = "_".join(rest)
    if rest[:1] in (["g"], ["d"]) and len(rest) > 1:  # as GANs name theirs: G_L1, D_real
        return Name("loss", split, joined, noise)
    higher = higher_is_better("_".join([*rest, "".join(rest)]))  # "m io u" is cut from "mIoU"
    if higher is None:
        return Name("", split, joined, noise)
    return Name("metric", split, joined, noise, +1 if higher else -1)


def _is_accuracy(words: list[str]) -> bool:
    """Accuracy over all classes, of the first guess: "top5" and "precision" are further metrics."""
    if not ACCURACY & {*words}:
        return False
    digits = [word for word in words if word.isdigit()]
    first = {"top", "prec"} & {*words}
    return digits in ([], ["1"]) and (bool({"acc", "accuracy"} & {*words}) or (bool(first) and digits == ["1"]))
