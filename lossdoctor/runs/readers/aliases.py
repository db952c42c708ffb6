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
    "DOWN",
    "EPOCH_NAMES",
    "LOSS",
    "NOISE",
    "NOT_MEASURES",
    "SPLITS",
    "STEP_NAMES",
    "UP",
]

SPLITS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("train", "training", "trn", "tr", "trl", "trainer"), "train"),
        **dict.fromkeys(("val", "valid", "validation", "validate", "vali", "eval", "evaluation", "dev", "va"), "val"),
        **dict.fromkeys(("heldout", "holdout", "tel"), "val"),
        **dict.fromkeys(("test", "testing", "te"), "test"),
    }
)
"""Which part of the data a word means. Where both were logged, validation is preferred to test."""

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

NOISE = frozenset(
    {
        *("mean", "avg", "average", "running", "epoch", "step", "batch", "iter", "iteration", "inner", "value"),
        *("metrics", "metric", "log", "logs", "scalar", "scalars", "total", "sum", "overall", "all", "global", "final"),
        *(
            "smoothed",
            "smooth",
            "ema",
            "vs",
            "iterations",
            "lm",
            "per",
            "stats",
            "s",
            "cur",
            "current",
            "mb",
            "dataloader",
        ),
    }
)
"""Words that do not make it another quantity. A name with fewer of them is preferred."""

ACCURACY = frozenset({"acc", "accuracy", "top", "prec"})
"""Words for the share of right answers; "top" and "prec" only with a 1 behind it."""

ACCURACY_KINDS = frozenset({"categorical", "sparse", "binary", "token", "masked", "top", "classification"})

UP = (
    *(
        "map",
        "m_ap",
        "ap",
        "dice",
        "iou",
        "miou",
        "io_u",
        "mio_u",
        "m_io_u",
        "f1",
        "f_1",
        "auc",
        "auroc",
        "bleu",
        "rouge",
        "ssim",
        "psnr",
        "reward",
    ),
    *("recall", "precision", "acc", "accuracy", "score", "r2", "hella", "top", "mcc", "corr", "success"),
)
DOWN = ("ppl", "perplexity", "wer", "cer", "err", "error", "mae", "mse", "rmse", "fid", "lpips", "loss", "bpb", "bpc")
"""Parts of the names of further measures: which way is better."""

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
    }
)
"""Words of things that say nothing of the model's quality."""

BUILT_ON_EACH_OTHER = frozenset(
    {
        *("g", "d", "gan", "gen", "disc", "generator", "discriminator", "adv", "adversarial", "critic", "fake", "real"),
        *("actor", "policy", "value", "vf", "pi", "q", "qf", "td", "alpha", "entropy"),
    }
)
"""Parts of the names of losses that play against each other: their sum means nothing."""
