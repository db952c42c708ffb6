"""Programs whose lines need more than their words: the head of such a line, with what its groups mean.

Everything else ("step 3 | loss 2.1", "Epoch 1, train loss: 0.3") is read by its words alone, see `scan`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["BAR", "BATCH_BAR", "FINGERPRINTS", "FORMS", "RANK", "Form"]

_NUMBER = r"[-+]?(?:\d++\.?\d*+(?:[eE][-+]?\d++)?|nan|inf)"


@dataclass(frozen=True, slots=True)
class Form:
    """One kind of line: `sign` must be in it and `pattern` match at its beginning.

    Groups `epoch`, `step`, `batch` and `total` are places in the training, `cue` is the word that names the split,
    `tail` the rest, which is read by its words; `name` and `value` are one quantity, and any other group is one by its
    own name. `names` turns what a quantity is called into the column it is.
    """

    sign: str
    pattern: re.Pattern[str]
    names: Mapping[str, str] = field(default_factory=dict)
    split: str = ""
    every_number: bool = False
    """Whether all named numbers of the tail were logged, known or not."""


FORMS = (
    Form(  # build-nanogpt: 250 val 3.2145
        " ",
        re.compile(rf"(?P<step>\d{{1,12}}) (?P<name>train|val|hella) (?P<value>{_NUMBER})\s*$"),
        {"train": "train/loss", "val": "val/loss", "hella": "val/hellaswag_accuracy"},
    ),
    Form(  # llm.c: s:250 tel:3.2145
        "s:",
        re.compile(rf"s:(?P<step>\d{{1,12}}) (?P<name>trl|tel|eval):(?P<value>{_NUMBER})(?P<tail>.*)"),
        {"trl": "train/loss", "tel": "val/loss", "eval": "val/hellaswag_accuracy", "norm": "grad_norm"},
    ),
    Form(  # pix2pix and CycleGAN: (epoch: 2, iters: 10, time: 0.740, data: 0.001) G_GAN: 2.573
        "(epoch:",
        re.compile(r"(?:\[[^\]]{0,40}\] )?\(epoch: (?P<epoch>\d+), iters: (?P<batch>\d+)(?P<tail>.*)"),
        every_number=True,
    ),
    Form(  # GluonCV on CIFAR: [Epoch 0] train=0.467608 val=0.558900 loss=1.452417 time: 16.450441
        "] train=",
        re.compile(
            rf"\[Epoch (?P<epoch>\d+)\] train=(?P<gluon_train>{_NUMBER})(?: val=(?P<gluon_val>{_NUMBER}))?(?P<tail>.*)"
        ),
    ),
    Form(  # Megatron-LM: validation loss at iteration 1000 | lm loss value: 2.5E+00 | lm loss PPL: 1.2E+01 |
        " loss at ",
        re.compile(
            r".{0,80}?(?P<cue>validation|test) loss at (?:iteration|step) (?P<step>\d+)[^|]{0,200}\|(?P<tail>.*)"
        ),
        {"value": "loss"},
    ),
    Form(  # timm: Train: 0 [  50/1251 (  4%)]  Loss: 6.95 (6.95)
        ": ",
        re.compile(
            r"(?:.{0,80}?[\s\]])?(?P<cue>Train|Test): (?P<epoch>\d+)"
            r" \[ *(?P<batch>\d+)/ *(?P<total>\d+)[^\]]{0,20}\](?P<tail>.*)"
        ),
    ),
    Form(  # Swin: Train: [0/300][10/1251]	eta 1:00:00 lr 0.000001
        "][",
        re.compile(
            r".{0,120}?(?P<cue>Train|Test|Epoch): ?\[ *(?P<epoch>\d+)/\d+\]"
            r"\[ *(?P<batch>\d+)/(?P<total>\d+)\](?P<tail>.*)"
        ),
    ),
    Form(  # the tutorial on CIFAR-10: [1,  2000] loss: 2.196
        "] ",
        re.compile(r"\[(?P<epoch>\d{1,6}), {1,6}(?P<batch>\d{1,9})\] (?P<tail>.*loss.*)"),
    ),
    Form(  # XGBoost and LightGBM: [10]	train-rmse:0.5	eval-rmse:0.6
        "]\t",
        re.compile(r"\[(?P<step>\d{1,9})\]\t(?P<tail>[\w' -]{1,80}[:#].*)"),
        every_number=True,
    ),
    Form(  # Darknet:  1200: 1.234567, 1.345678 avg loss, 0.001000 rate, 3.1 seconds, 76800 images
        " avg",
        re.compile(
            rf"\s{{0,8}}(?P<step>\d{{1,9}}): (?P<batch_loss>{_NUMBER}), (?P<avg_loss>{_NUMBER}) avg(?: loss)?,"
            rf" (?P<lr>{_NUMBER}) rate,"
        ),
    ),
    Form(  # TensorFlow's estimators: Saving dict for global step 400: accuracy = 0.5, global_step = 400, loss = 2.3
        "Saving dict",
        re.compile(r".{0,200}?Saving dict for global step (?P<step>\d+): (?P<tail>.*)"),
        split="val",
    ),
    Form(  # ESPnet: 1epoch:train:1-50batch: iter_time=0.1, loss=80.1
        "epoch:",
        re.compile(r"(?:.{0,80}?\s)?(?P<epoch>\d+)epoch:(?P<cue>train|valid):\d+-(?P<batch>\d+)batch: (?P<tail>.*)"),
    ),
    Form(  # the PyTorch ImageNet example after a validation:  * Acc@1 50.120 Acc@5 75.320
        "* ",
        re.compile(r"\s{0,8}\*\s{1,8}(?P<tail>(?:Acc|Prec|acc|loss|Loss|Top|mAP|mIoU).*)"),
        split="val",
    ),
)

RANK = re.compile(
    r"\s{0,4}(?:\[(?:default|rank|Rank |RANK )(?P<rank>\d{1,6})\]:?\s?"
    r"|\([\w.]{1,60} pid=(?P<pid>\d{1,9})(?:, [^)]{0,60})?\)\s)"
)
"""What launchers put before the lines of each process: torchrun, Ray."""

BAR = re.compile(
    r"(?P<title>[^|]{0,200}?)\d{1,3}%\|[^|]{0,400}\|\s{0,8}"
    r"(?P<done>\d{1,12}(?:\.\d{1,2})?)/(?P<total>\d{1,12}(?:\.\d{1,2})?) \[(?P<tail>.*)",
    re.DOTALL,
)
"""tqdm: Epoch 1:  50%|█████     | 500/1000 [00:10<00:10, 50.0it/s, loss=0.3]"""

BATCH_BAR = re.compile(
    r"\s{0,8}(?P<done>\d{1,9})/(?P<total>\d{1,9})\s{1,4}"
    r"(?:\[[=>. ]{0,200}\]|[━╸╺─ ]{2,200}|(?=- .{0,40}\d)|(?=\d+m?s))(?P<tail>.*)"
)
"""Keras: 1875/1875 [==============================] - 5s 3ms/step - loss: 0.3 - val_loss: 0.2"""

FINGERPRINTS = (
    ("modded-nanogpt", re.compile(r"step:\d+/\d+ (?:train|val)_")),
    ("llm.c", re.compile(r"s:\d+ (?:tel|trl|eval):|step +\d+/\d+ \| (?:train )?loss .{0,30}\(")),
    ("nanoGPT", re.compile(r"iter \d+: loss |step \d+: train loss |\d+ (?:train|val|hella) \S+$")),
    ("Transformer-XL", re.compile(r"\| (?:epoch +\d+ step +\d+|Eval +\d+ at step) ")),
    ("Megatron-LM", re.compile(r".{0,80}? iteration +\d+/ *\d+ \|| ?validation loss at iteration")),
    ("DeepSpeed", re.compile(r".{0,120}?(?:log_dist|steps: \d+ loss: )")),
    ("MXNet", re.compile(r".{0,40}?Epoch\[\d+\] (?:Batch \[\d+\]\t|Train-|Validation-)")),
    (
        "GluonCV",
        re.compile(
            r".{0,40}?(?:\[Epoch \d+\] (?:train=|training: |validation: |Training cost)|Epoch ?\[\d+\] Batch ?\[)"
        ),
    ),
    ("pix2pix", re.compile(r"(?:\[[^\]]{0,40}\] )?\(epoch: \d+, iters: \d+")),
    ("MMDetection", re.compile(r".{0,60}?(?:mm\w+ - INFO - (?:Epoch|Iter) ?[(\[])")),
    ("Detectron2", re.compile(r".{0,80}?d2\.utils\.events")),
    ("timm", re.compile(r".{0,80}?(?:Train|Test): \d+ \[ *\d+/\d+")),
    ("PyTorch example", re.compile(r"Epoch: \[\d+\]\[ *\d+/\d+\]|Train Epoch: \d+ \[|Test set: Average loss")),
    ("fairseq", re.compile(r".{0,120}?(?:\[train_inner\]|\| train_inner \||\| epoch \d{3}(?: \||:))")),
    ("DLLogger", re.compile(r"DLLL ")),
    ("Transformers", re.compile(r".{0,700}?\{'(?:loss|eval_loss)': .{0,200}'(?:learning_rate|eval_runtime)'")),
    ("XGBoost", re.compile(r"\[\d+\]\t")),
)
"""Lines by which a program is known, for the report; what they mean does not depend on it."""
