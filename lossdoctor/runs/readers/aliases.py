"""The words that logs name their columns by, from 97 public logs of 41 repositories: data for `names`.

A name is cut into words at every sign that is no letter or digit, at a change from small to capital letters, and
between letters and digits; "metrics/mAP50(B)" is "metrics m ap 50 b".
"""

from collections.abc import Mapping
from types import MappingProxyType

__all__ = [
    "ACCURACY",
    "ACCURACY_KINDS",
    "BUILT_ON_EACH_OTHER",
    "EPOCH_NAMES",
    "LOSS",
    "NOISE",
    "NOT_MEASURES",
    "OF_PREFERENCES",
    "QUALITY",
    "REWARDS",
    "SPLITS",
    "STEP_NAMES",
]

SPLITS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("train", "training", "trainning", "trn", "tr", "trl", "trainer"), "train"),
        **dict.fromkeys(("val", "valid", "validation", "validate", "vali", "eval", "evaluation", "dev", "va"), "val"),
        **dict.fromkeys(("heldout", "holdout", "tel", "vaild", "vl", "vld"), "val"),
        **dict.fromkeys(("test", "testing", "te", "tst"), "test"),
    }
)
"""Which part of the data a word means, with misspellings seen more than once. Where both were logged, validation is
preferred to test."""

STEP_NAMES = (
    *("trainer/global_step", "train/global_step", "global_step", "global step", "optimizer_step", "update_step"),
    *("num_updates", "train_inner/num_updates", "train/num_updates", "current_steps", "train/step", "step", "steps"),
    *("train_step", "iteration", "iterations", "iter", "iters", "it", "itr", "update", "updates", "n_iter"),
    *(
        "global_iter",
        "global_iteration",
        "training_step",
        "train/iteration",
        "batch",
        "batches",
        "round",
        "timesteps",
        "num_timesteps",
        "time/total_timesteps",
        "total_timesteps",
        "timesteps_total",
        "episode",
        "episodes",
        "_step",
    ),
)
"""Names of the axis that counts steps, best first; compared in lower case."""

EPOCH_NAMES = ("epoch", "epochs", "train/epoch", "train_inner/epoch", "trainer/epoch", "ep", "epoch_num", "cur_epoch")

LOSS = frozenset(
    {
        "loss",
        "losses",
        "cost",
        "nll",
        "ce",
        "xent",
        "crossentropy",
        "bce",
        "objective",
        "logloss",
        "mlogloss",
        "bpb",
        "bpc",
        "trl",
    }
)
"""Words that make a name that of a loss. `trl` and `tel` are llm.c's train and test loss."""

NOISE: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(("mean", "avg", "average", "running", "epoch", "step", "batch", "iter", "iteration"), 1),
        **dict.fromkeys(("inner", "value", "metrics", "metric", "log", "logs", "scalar", "scalars", "total", "sum"), 1),
        **dict.fromkeys(("overall", "all", "global", "final", "vs", "iterations", "lm", "per", "stats", "s", "cur"), 1),
        **dict.fromkeys(("current", "mb", "dataloader"), 1),
        **dict.fromkeys(("smoothed", "smooth", "ema"), 2),
    }
)
"""Words that do not make it another quantity. A name with less of them is preferred: to the "smooth" loss, which may
also be a part of the loss, every other."""

ACCURACY = frozenset({"acc", "accuracy", "top", "prec"})
"""Words for the share of right answers; "top" and "prec" only with a 1 behind it."""

ACCURACY_KINDS = frozenset({"categorical", "sparse", "binary", "token", "masked", "top", "classification"})

QUALITY = (
    "f",
    "dice",
    "iou",
    "miou",
    "io",
    "mio",
    "m",
    "map",
    "auc",
    "auroc",
    "mcc",
    "bleu",
    "rouge",
    "ssim",
    "mrr",
    "ndcg",
)
"""How the names of measures begin that say how good a model is on the whole, best first."""

NOT_MEASURES = frozenset(
    {
        *(
            "runtime",
            "second",
            "seconds",
            "sec",
            "num",
            "count",
            "examples",
            "samples",
            "eta",
            "memory",
            "mem",
            "duration",
        ),
        *(
            "remaining",
            "elapsed",
            "flos",
            "flops",
            "parameters",
            "params",
            "timestamp",
            "wall",
            "time",
            "hours",
            "size",
        ),
        *("percentage", "throughput", "tokens", "ms", "wps", "ups", "gpu", "cpu", "scale", "weight", "coef", "lambda"),
        *("weights", "coefs", "coefficient", "coefficients", "function", "fn", "type", "name", "names"),
    }
)
"""Words of things that say nothing of the model's quality."""

REWARDS = frozenset({"rew", "reward", "rewards", "eprewmean", "eprewardmean"})
"""Words for what an agent gained."""

OF_PREFERENCES = frozenset({"chosen", "rejected", "margin", "margins", "accuracy", "accuracies"})
"""Words behind "rewards" where they are no agent's: of answers that are compared, as in DPO, by a loss that falls."""

BUILT_ON_EACH_OTHER = frozenset(
    {
        *("g", "d", "gan", "gen", "disc", "generator", "discriminator", "adv", "adversarial", "critic", "fake", "real"),
        *("actor", "policy", "value", "vf", "pi", "q", "qf", "td", "alpha", "entropy"),
    }
)
"""Parts of the names of losses that play against each other: their sum means nothing."""
