"""The words that names of printed numbers are made of: data for `names`."""

__all__ = [
    "AVERAGES",
    "BATCHES",
    "CUES",
    "DANGLING",
    "EPOCHS",
    "FILLERS",
    "IGNORED",
    "MEASURES",
    "NOT_MEASURED",
    "STEPS",
    "TOTALS",
    "UNITS",
    "VERBS",
]

CUES = {
    **dict.fromkeys(("train", "training", "trainning", "tr", "trn"), "train"),
    **dict.fromkeys(
        ("val", "valid", "validation", "validate", "validating", "eval", "evaluation", "evaluating"), "val"
    ),
    **dict.fromkeys(("dev", "holdout", "cv", "vali", "vaild", "vld"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Words that say which part of the data a number is of, and the split they mean."""

EPOCHS = frozenset(
    {
        *("current_epoch", "ep", "epoch", "epochs"),
    }
)
"""Names that count epochs."""

STEPS = frozenset(
    {
        *("current_steps", "global_iter", "global_iteration", "global_step", "global_steps", "globalstep"),
        *("iteration", "iterations", "n_updates", "nb_updates", "num_steps", "num_update", "num_updates"),
        *("optimizer_step", "step", "steps", "total_step", "train_step", "train_steps", "trainer/global_step"),
        *("training_step", "update_step"),
    }
)
"""Names that count steps of the whole training."""

BATCHES = frozenset(
    {
        *("batch", "batch_id", "batch_idx", "batches", "i", "it", "iter", "iters", "itr", "mb", "micro_step"),
        *("mini_batch", "minibatch", "round", "step_in_epoch", "up", "upd", "update", "updates"),
    }
)
"""Names that count batches, which may begin anew in each epoch."""

MEASURES = (
    *(r"\w*?loss(?:es)?", r"losses\w*", "logloss", "cost", "objective", "energy", "elbo", "nll", "ce", "kl", "xent"),
    *("crossentropy", "cross[_-]entropy", "bp[bcd]", "ppl", "perplexity", "mse", "mae", "rmse", "l[12]", "smoothl1"),
    *("acc", "accuracy", r"\w+_acc", r"acc\d", r"top\d", "prec", "precision", "recall", "f1", "auc", "auroc", "map"),
    *("dice", "m?iou", "error", "err", "wer", "cer", r"bleu\d?", r"rouge\w*", "mrr", "ndcg", "hella", "score"),
    *("psnr", "ssim", "fid", "pesq", "sisdr", "si_sdr", "rewards?", "return"),
)
"""Expressions for words that make a name that of a loss or of a measure of quality."""

NOT_MEASURED = frozenset(
    {
        *("best", "lowest", "highest", "improved", "decreased", "increased", "reduced", "from", "to", "than"),
        *("patience", "threshold", "weight", "weights", "lambda", "coef", "coefficient", "function", "previous"),
        *("prev", "target", "tolerance", "delta", "saving", "saved", "save", "seed", "until", "every", "after"),
        *("before", "limit", "expected", "baseline", "goal", "smoothing", "reduction", "seconds", "total_params"),
        *("params", "parameters", "remaining", "eta", "counter"),
    }
)
"""Words of sentences about a number, and of settings: "best loss", "improved from", "loss weight"."""

FILLERS = frozenset(
    {
        *("at", "on", "the", "set", "subset", "for", "in", "of", "is", "was", "with", "'s", "and", "-", "--", "---"),
        *("*", "#", "+", "&", "@", "info", "debug", "root", "current", "so", "far"),
    }
)
"""Words that say nothing of what a number is."""

DANGLING = frozenset(
    {
        *("the", "of", "on", "for", "in", "with", "at", "after", "from", "by"),
    }
)
"""Words that end the text before a number that is something else: "on the 10000 test images"."""

VERBS = frozenset(
    {
        *("is", "was"),
    }
)
"""Words before the number of what was measured, "the loss is 2.5", and of much else: "the dataset is 100 MB"."""

UNITS = frozenset(
    {
        *("ms", "s", "sec", "secs", "seconds", "samples", "sample", "batches", "batch", "steps", "examples"),
        *("tokens", "tok", "images", "img", "it", "iter", "min", "minutes", "hours", "h", "days", "day", "mb", "gb"),
        *("%", "m"),
    }
)
"""Words behind the number before: they are no part of the next one's name."""

TOTALS = frozenset(
    {
        *("current", "end", "global", "optimizer", "overall", "this", "total", "train", "training"),
        *("begin", "beginning", "finished", "running", "start", "starting"),
        *("fine-tune", "fine-tuning", "finetune", "finetuning", "pre-train", "pre-training", "pretrain", "pretraining"),
    }
)
"""Words that leave a count what it is: "global training step"."""

AVERAGES = frozenset(
    {
        *("average", "avg", "ema", "ma", "mean", "median", "smoothed"),
    }
)
"""Words for the mean of the number before: "loss 6.9 (avg 7.0)"."""

IGNORED = frozenset(
    {
        *("best", "days", "eta", "gb", "gpu", "h", "hours", "level", "line", "local_rank", "m", "mb", "min", "mins"),
        *("minutes", "ms", "node", "pid", "rank", "s", "sec", "secs", "seed", "v_num", "version"),
    }
)
"""Names of what is neither measured nor a place in the training."""
