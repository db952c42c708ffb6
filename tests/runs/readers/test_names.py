"""Names of columns in the wild are understood."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossdoctor.runs.readers.names import understand, understood


@pytest.mark.parametrize(
    ("names", "role", "split", "part"),
    [
        ("loss total_loss epoch_loss ce", "loss", "", ""),
        (
            "train_loss train/loss training_loss Loss_mean_Train trl trainLoss train/loss_step tr_loss train",
            "loss",
            "train",
            "",
        ),
        ("train/train_loss train_inner/loss Train/Loss loss/train Train_Loss", "loss", "train", ""),
        (
            "val_loss eval_loss valid_loss validation/loss val/loss dev_loss valLoss tel val valid/valid_loss",
            "loss",
            "val",
            "",
        ),
        ("final_eval_loss Loss_mean_Dev evaluation_loss_vs_iterations val/loss_dataloader_idx_0", "loss", "val", ""),
        ("test_loss test/loss", "loss", "test", ""),
        ("train/box_loss train_loss_box train/loss_box", "loss", "train", "box"),
        ("val/box_loss", "loss", "val", "box"),
        ("accuracy acc top1 acc-top1 prec@1 epoch_accuracy sparse_categorical_accuracy", "accuracy", "", ""),
        ("val_acc eval_top1 val_accuracy eval_accuracy valAcc", "accuracy", "val", ""),
        ("test_acc1", "accuracy", "test", ""),
        ("eval_wer", "metric", "val", "wer"),
        ("ppl perplexity", "perplexity", "", ""),
        ("lr learning_rate lr-AdamW x/lr0 lr/pg0 Learning_Rate base_lr lr_0", "learning_rate", "", ""),
        ("grad_norm gnorm gradient_norm grad_2.0_norm_total global_grad_norm", "grad_norm", "", ""),
        ("loss_scale", "loss_scale", "", ""),
        ("step global_step iteration iter num_updates _step trainer/global_step current_steps", "step", "", ""),
        ("epoch Epoch train/epoch", "epoch", None, None),
        ("samples_per_second samples/sec images/sec", "samples_per_second", "", ""),
        ("data_time", "data_wait", "", ""),
        ("step_time iter_time ms/batch step_avg", "step_time", "", ""),
        (
            "eval_runtime eval_steps_per_second total_flos time eta_seconds n_parameters num_examples memory",
            "",
            None,
            None,
        ),
        ("roi_head/num_bg_samples train_runtime percentage elapsed", "", None, None),
        ("grad_norm/layer1.weight", "", None, None),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) and value else "-",
)
def test_names_that_logs_use_are_understood(names, role, split, part):
    for name in names.split():
        found = understand(name)
        assert found.role == role, name
        assert split is None or found.split == split, name
        assert part is None or found.part == part, name


def test_top5_and_other_metrics_are_not_the_accuracy():
    assert [understand(name).role for name in ("eval_top5", "acc-top5", "metrics/mAP50(B)", "hella")] == ["metric"] * 4


def test_directions_are_known():
    assert [understand(name).direction for name in ("eval_wer", "val_dice", "val_F1", "val/rmse", "mAP50")] == [
        -1,
        1,
        1,
        -1,
        1,
    ]


def test_the_nearest_word_says_the_split():
    assert understand("train/val_loss").split == "val"
    assert understand("eval/train_loss").split == "train"


def test_players_of_a_game_are_known():
    assert all(
        understand(name).plays_against for name in ("loss_G", "G_L1", "D_real", "critic_loss", "train/disc_loss")
    )
    assert not understand("train/box_loss").plays_against


def test_t_and_v_mean_training_and_validation_only_where_both_are_there_and_nothing_plainer():
    splits = {name: known.split for name, known in understood(["epoch", "T_Loss", "T_acc", "V_Loss", "V_acc."]).items()}
    assert splits == {"epoch": "", "T_Loss": "train", "T_acc": "train", "V_Loss": "val", "V_acc.": "val"}
    for names in (["t_loss"], ["t_loss", "v_loss", "a_loss"], ["t_loss", "v_loss", "val_loss"], ["loss_t", "loss_v"]):
        assert not any(known.split == "train" for known in understood(names).values()), names


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("vaild_loss", "val"),
        ("vld_loss", "val"),
        ("trn_loss", "train"),
        ("trainning loss", "train"),
        ("tst acc", "test"),
    ],
)
def test_shorter_words_and_misspellings_that_are_common_are_understood(name, split):
    assert understand(name).split == split


@given(st.text(max_size=400))
def test_any_name_has_some_meaning_or_none(name):
    assert understand(name).role is not None
