"""Whether more of a metric is better, by the words of its name."""

import re

__all__ = ["higher_is_better"]

_HIGHER = re.compile(
    "(acc|ap$|ap\\d|auc|auroc|bleu|corr|dice|f1|hella|hits|iou|jaccard|kappa|map|mcc|miou|mrr|ndcg|pearson|prec|psnr"
    "|r2|recall|reward|return|rouge|score|sensitivity|spearman|specificity|ssim|success|top|win$|winrate|wins)"
)
_LOWER = re.compile("(bpb|bpc|bpd|cer|cost|eer|err|fid|loss|lpips|mae|mape|mse|nll|perplexity|ppl|rmse|wer)")
"""How words in the names of metrics begin."""


def higher_is_better(name: str) -> bool | None:
    """The direction of a metric by the words of its name; None where they do not tell.

    >>> higher_is_better("val_accuracy"), higher_is_better("val_mean_f1"), higher_is_better("val_loss")
    (True, True, False)
    >>> higher_is_better("val_temperature") is None
    True
    """
    words = name.lower().removeprefix("val_").removeprefix("train_").split("_")
    if any(map(_LOWER.match, words)):
        return False
    return True if any(map(_HIGHER.match, words)) else None
