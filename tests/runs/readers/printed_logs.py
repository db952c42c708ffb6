"""What programs print, copied from their own formats, and what is to be read from it.

`data/printed/` has the lines. Columns are {row: value}; a row is a line that was a measurement.
"""

import math
from pathlib import Path

__all__ = ["EXPECTED", "printed"]

nan = math.nan

EXPECTED = {
    "nanogpt": {
        "step": {0: 0, 1: 0, 2: 10, 3: 20},
        "train/loss": {0: 10.9886, 3: 8.1},
        "val/loss": {0: 10.9898, 3: 8.2},
        "loss": {1: 10.9886, 2: 9.5},
    },
    "build_nanogpt": {
        "step": {0: 0, 1: 0, 2: 0, 3: 1, 4: 250},
        "val/loss": {0: 10.931, 4: 5.9},
        "train/loss": {2: 10.934416, 3: 9.6},
        "val/hellaswag_accuracy": {1: 0.2413},
    },
    "llm_c": {
        "val/loss": {0: 10.968871},
        "train/loss": {1: 10.965596, 2: 9.9},
        "lr": {2: 0.0001},
        "grad_norm": {2: 2.31},
    },
    "modded_nanogpt_after_its_source": {
        "step": {0: 0, 1: 1, 2: 125},
        "val_loss": {0: 16.0104, 2: 6.4},
        "train_loss": {1: 10.2},
    },
    "nanochat": {
        "step": {0: 10, 1: 20, 2: 250},
        "loss": {0: 9.8, 1: 8.8},
        "grad_norm": {0: 1.2, 1: 1.1},
        "tok/sec": {0: 1700000.0, 1: 1700000.0},
        "val/bpb": {2: 1.12},
    },
    "torchtitan": {
        "step": {0: 1, 1: 10},
        "loss": {0: 7.12, 1: 6.12},
        "grad_norm": {0: 1.2, 1: 1.1},
        "tps": {0: 7000, 1: 7000},
    },
    "pytorch_imagenet": {
        "step": {0: 1, 1: 11, 2: 11, 3: 11, 4: 101},
        "epoch": {0: 0, 1: 0, 2: 0, 3: 0, 4: 1},
        "loss": {0: 6.9, 1: 6.8, 4: 6.4},
        "test/loss": {2: 6.5},
        "test/acc@1": {2: 1.5, 3: 1.6},
    },
    "pytorch_mnist": {
        "step": {0: 0, 1: 640, 2: 640, 3: 60000},
        "loss": {0: 2.3, 1: 1.7, 3: 0.9},
        "test/average_loss": {2: 0.0545},
        "test/accuracy": {2: 0.9822},
    },
    "pytorch_transfer_learning": {
        "epoch": {0: 0, 1: 0, 2: 1, 3: 1},
        "train/loss": {0: 0.5, 2: 0.4},
        "val/loss": {1: 0.3, 3: 0.25},
        "val/acc": {1: 0.9, 3: 0.91},
    },
    "pytorch_quickstart": {
        "step": {0: 64, 1: 6464, 2: 6464, 3: 60064},
        "loss": {0: 2.303494, 1: 2.294637, 3: 2.16},
        "test/avg_loss": {2: 2.15},
    },
    "timm": {"step": {0: 0, 1: 50, 2: 50, 3: 1251}, "loss": {0: 6.95, 1: 6.9, 3: 6.8}, "test/loss": {2: 6.5}},
    "keras_redrawn": {
        "epoch": {0: 1, 1: 2, 2: 2},
        "loss": {0: 1.0, 1: 0.8},
        "val_loss": {0: 1.2, 1: 1.1},
        "test/loss": {2: 1.15},
    },
    "keras_3_in_colour": {"epoch": {0: 1, 1: 2}, "loss": {0: 1.0, 1: 0.9}, "val_loss": {0: 1.2, 1: 1.1}},
    "hf_trainer": {
        "step": {},
        "epoch": {0: 0.1, 1: 0.2, 2: 0.2},
        "loss": {0: 2.9, 1: 0.0},
        "grad_norm": {0: 1.5, 1: nan},
        "eval_loss": {2: 2.5},
        "train_loss": {},
    },
    "dict_after_its_step": {
        "step": {0: 100, 1: 200, 2: 300},
        "loss": {0: 2.3, 1: 2.1, 2: 2.0},
        "acc": {0: 0.1, 1: 0.2, 2: 0.3},
    },
    "lightning_bar": {
        "step": {0: 2, 1: 4, 2: 6, 3: 8},
        "loss": {0: 1.8, 1: 1.6, 2: 0.8, 3: 0.6},
        "val_loss": {3: 1.5},
        "v_num": {},
    },
    "megatron_leaves_out_nan": {
        "step": {0: 1, 1: 2, 2: 3, 3: 3},
        "lm_loss": {1: 1.993132, 2: nan},
        "grad_norm": {1: 2.486, 2: nan},
        "learning_rate": {0: 7.762e-05, 1: 7.762e-05, 2: 7.762e-05},
        "val/lm_loss": {3: 2.513},
        "val/lm_ppl": {3: 12},
    },
    "deepspeed": {"step": {0: 10, 1: 10, 2: 20}, "loss": {1: 6.9012, 2: 6.8}, "lr": {0: 9.7e-06}},
    "transformer_xl": {
        "step": {0: 200, 1: 400, 2: 400, 3: 400},
        "loss": {0: 6.97, 1: 6.03},
        "val/loss": {2: 4.28},
        "test/loss": {3: 3.19},
    },
    "word_language_model": {"step": {0: 200, 1: 200, 2: 3183}, "loss": {0: 7.63, 2: 5.63}, "val/loss": {1: 5.9}},
    "fairseq_json": {
        "step": {0: 200, 1: 400, 2: 400},
        "loss": {0: 15.078, 1: 14.0},
        "gnorm": {0: 2.8, 1: 2.7},
        "valid_loss": {2: 8.1},
    },
    "fairseq_simple": {
        "step": {0: 100, 1: 1000, 2: 1000},
        "loss": {0: 10.1},
        "val/loss": {1: 8.5},
        "train/loss": {2: 9.4},
        "val/best_loss": {},
    },
    "gluoncv_mixup": {
        "epoch": {0: 0, 1: 1},
        "train/rmse": {0: 0.467608, 1: 0.447608},
        "val/accuracy": {0: 0.5589, 1: 0.6589},
    },
    "pix2pix": {
        "step": {0: 100, 1: 200, 2: 250},
        "G_GAN": {0: 2.573, 1: 2.373, 2: 2.173},
        "D_real": {0: 0.086, 1: 0.085, 2: 0.084},
    },
    "dllogger": {
        "step": {0: 1, 1: 2, 2: 2},
        "epoch": {0: 0, 1: 0, 2: 0},
        "train.loss": {0: 6.9, 1: 6.8},
        "val.loss": {2: 6.2},
    },
    "mmengine": {"step": {0: 50, 1: 150, 2: 150}, "loss": {0: 1.5, 1: 1.2}, "val/coco/bbox_mAP": {2: 0.3}},
    "detectron2": {"step": {0: 19, 1: 39}, "total_loss": {0: 86.47, 1: 6.47}, "lr": {0: 1e-05, 1: 2e-05}},
    "espnet": {"epoch": {0: 1, 1: 1}, "loss": {0: 70.1}, "train/loss": {1: 65}, "val/loss": {1: 50}},
    "speechbrain": {"train/loss": {0: 3.2, 1: 2.2}, "val/loss": {0: 2.1, 1: 1.1}, "lr": {0: 0.001, 1: 0.001}},
    "nnunet": {
        "epoch": {0: 0, 1: 0, 2: 0, 3: 1, 4: 1},
        "train_loss": {1: -0.1, 3: -0.3},
        "val_loss": {2: -0.2, 4: -0.35},
    },
    "ultralytics_redrawn": {"epoch": {0: 1, 1: 2}, "box_loss": {0: 1.19, 1: 1.011}, "cls_loss": {0: 2.3, 1: 2.1}},
    "skorch_table": {"epoch": {0: 1, 1: 2}, "train_loss": {0: 0.6905, 1: 0.65}, "valid_loss": {0: 0.6439, 1: 0.6}},
    "marian": {
        "step": {0: 100, 1: 200, 2: 200},
        "cost": {0: 9.1, 1: 8.1},
        "grad_norm": {0: 5.1, 1: 5.2},
        "val/cross-entropy": {2: 50.1},
    },
    "composer": {"step": {0: 10, 1: 20}, "train/loss/train/total": {0: 2.3, 1: 2.1}},
    "own_loop_and_remarks": {"epoch": {0: 1, 1: 2}, "train_loss": {0: 0.5, 1: 0.4}, "val_loss": {0: 0.6, 1: 0.5}},
    "not_finite": {"train/loss": {0: 2.0, 1: nan, 2: nan}, "val/loss": {0: 2.1, 1: -math.inf, 2: nan}},
    "losses_without_a_step": {"step": {}, "loss": {row: 3 - row / 10 for row in range(12)}},
    "informer": {
        "step": {0: 100, 1: 132, 2: 200, 3: 264, 4: 300, 5: 396, 6: 396},
        "loss": {0: 1, 2: 0.5, 4: 0.3333333},
        "train/loss": {1: 1.06, 3: 0.53, 5: 0.3533333},
        "val/loss": {1: 0.63, 3: 0.315, 5: 0.21},
        "test/loss": {1: 0.53, 3: 0.265, 5: 0.1766667},
    },
    "bar_and_lines": {"epoch": {0: 4, 1: 5, 2: 6}, "loss": {0: 14.164, 1: 13.164, 2: 12.164}},
    "text_behind_a_bar": {"epoch": {0: 3, 1: 4, 2: 5}, "train/loss": {0: 0.02, 1: 0.015, 2: 0.012}},
    "blocks_of_train_and_test": {
        "train/batch_average_accuracy": {0: 1, 2: 1, 6: 1, 8: 1},
        "train/total_average_loss": {4: 0.025, 10: 0.025},
        "test/total_average_loss": {5: 0.12, 11: 0.12},
    },
    "headings": {
        "epoch": {0: 1, 1: 1, 2: 1, 3: 2, 4: 2, 5: 2},
        "val/loss": {0: 0.43, 3: 0.44},
        "val/accuracy": {1: 0.83, 4: 0.84},
        "val/f1_macro": {2: 0.78, 5: 0.79},
    },
    "megatron_labelled": {
        "step": {0: 900, 1: 1000, 2: 1000, 3: 1000},
        "lm_loss": {0: 3.1, 1: 2.984847},
        "sop_loss": {0: 0.079, 1: 0.07854642},
        "grad_norm": {0: 1.21, 1: 1.11},
        "val/lm_loss": {2: 4.328599},
        "val/lm_ppl": {2: 75.83796},
        "test/lm_loss": {3: 3.430229},
        "test/loss_iteration": {},
    },
}


def printed(program):
    """The lines of a program, as bytes."""
    return (Path(__file__).parent / "data" / "printed" / f"{program}.log").read_bytes()
