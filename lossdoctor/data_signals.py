"""The signals of the data: batches of both splits, and what the model makes of them."""

from lossdoctor.signal import Signal

__all__ = ["DATA_SIGNALS"]

_TRAIN_BATCHES = "iterate over monitor.batches(loader)"
_VAL_BATCHES = 'iterate over monitor.batches(val_loader, split="val") before monitor.evaluation'
_BOTH_BATCHES = 'iterate over monitor.batches(loader), and over monitor.batches(val_loader, split="val") to validate'
_LOSS_TENSOR = "pass the loss to monitor.step as the tensor that backward() was called on, outside of torch.compile"
_OUTPUT_TAP = "record the run with Monitor, outside of torch.compile"

_BATCH = (
    ("input_mean", "1", "mean of the finite inputs"),
    ("input_std", "1", "standard deviation of the finite inputs"),
    ("input_min", "1", "smallest finite input"),
    ("input_max", "1", "largest finite input"),
    ("input_non_finite", "1", "share of the inputs that are NaN or infinite"),
    ("label_min", "1", "smallest label that is not ignored (-100)"),
    ("label_max", "1", "largest label that is not ignored"),
    ("label_entropy", "1", "entropy of the label histogram / ln(min(classes, labels)), 0 to 1,"),
    ("labels_distinct", "labels", "number of different labels"),
    ("supervised_share", "1", "share of the integer labels that are not ignored"),
    ("padding_share", "1", "share of padding among the tokens"),
    ("padding_supervised_share", "1", "share of padding among the labels of tokens that are not -100, by the mask,"),
)
_OUTPUT = (
    ("output_classes", "1", "width of the model's output: the classes of a classifier"),
    ("output_std", "1", "standard deviation of the model's outputs over the batch, mean over outputs"),
    ("output_non_finite", "1", "share of the model's outputs that are NaN or infinite"),
    ("top_prediction_share", "1", "share of the most frequent prediction in the batch"),
    ("rows_sum_to_one", "1", "share of output rows that are >= 0 and sum to 1: probabilities, not logits"),
)

DATA_SIGNALS = (
    # -- at sample steps
    *(Signal(name, "step", unit, f"{meaning} of the batch", _TRAIN_BATCHES) for name, unit, meaning in _BATCH),
    *(Signal(name, "step", unit, meaning, _OUTPUT_TAP) for name, unit, meaning in _OUTPUT),
    Signal("shape_mismatch", "step", "1", "1 where (N, 1) and (N,) became (N, N) in the loss, else 0", _TRAIN_BATCHES),
    Signal("softmax_twice", "step", "1", "1 where a loss made for logits got probabilities, else 0", _LOSS_TENSOR),
    Signal("binary_targets", "step", "1", "1 where the loss is torch's binary cross entropy, else 0", _LOSS_TENSOR),
    Signal(
        "cross_entropy_alone",
        "step",
        "1",
        "of torch's cross entropies: 1 where the loss is nothing else, scaled or added up, 0 where other terms join it",
        _LOSS_TENSOR,
    ),
    Signal("ignore_index", "step", "label", "the label that torch's cross entropy leaves out", _LOSS_TENSOR),
    Signal(
        "epochs_in_same_order",
        "step",
        "epochs",
        "epochs in a row that began with the same rows in the same order, the latest one among them",
        _TRAIN_BATCHES,
    ),
    # -- once an epoch
    Signal("epoch_order", "step", "1", "24-bit hash of the labels an epoch begins with", _TRAIN_BATCHES),
    # -- once a validation
    *(
        Signal(f"val_{name}", "evaluation", unit, f"{meaning} of the first validation batch", _VAL_BATCHES)
        for name, unit, meaning in _BATCH
    ),
    Signal("val_rows_in_train", "evaluation", "1", "share of validation rows that are training rows", _BOTH_BATCHES),
)
