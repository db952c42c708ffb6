"""What loops of one's own print: sentences, counts beside shares, phases, bars over epochs, cards of one step."""

import pytest

from lossdoctor.runs.readers import runs_of, text


@pytest.fixture
def runs(tmp_path):
    def read(content):
        path = tmp_path / "train.log"
        path.write_text(content)
        assert text.detect(path, path.read_bytes()[:65536])
        return [run for log in text.read(path) for run in runs_of(log)]

    return read


def column(run, name):
    table = run.evaluations if name.startswith("val_") else run.steps
    return table.columns[name].values[table.columns[name].mask()].tolist()


def test_a_count_behind_the_share_it_makes_is_no_place(runs):
    lines = "".join(
        f"epoch {e}\nloss: {3 - e / 10:.1f}\ntest accuracy: {20 + e}%, ({500 + 9 * e}/2400)\n" for e in range(1, 9)
    )
    (run,) = runs(lines)
    assert run.steps.step.tolist() == run.evaluations.step.tolist() == [*range(1, 9)]
    assert column(run, "val_accuracy") == [20 + e for e in range(1, 9)]


def test_a_place_in_parentheses_before_what_is_measured_is_one(runs):
    (run,) = runs("".join(f"Epoch 1, ({b}/40) loss: 2.{b}\n" for b in (10, 20, 30, 40)))
    assert run.steps.step.tolist() == [10, 20, 30, 40]


def test_losses_in_sentences_are_read(runs):
    lines = "".join(
        f"Starting epoch {e} current lr is 0.01\n"
        + "".join(
            f"Epoch {e}, Step {s}, total used time {s}.5 (s), avg loss so far is {2 - e / 5 - s / 100:.3f}\n"
            for s in (5, 10)
        )
        + f"Epoch {e}, val loss is {2 - e / 5:.2f}, val mse is 0.1.\n"
        for e in range(4)
    )
    (run,) = runs(lines)
    assert column(run, "train_loss") == pytest.approx([2 - e / 5 - s / 100 for e in range(4) for s in (5, 10)])
    assert column(run, "val_loss") == pytest.approx([2 - e / 5 for e in range(4)])
    assert column(run, "learning_rate") == pytest.approx([0.01] * 4)


def test_a_phase_that_counts_its_own_epochs_is_another_training(runs):
    first = "".join(f"Epoch {e} | Train Loss: {2 - e / 10:.2f} | Val Loss: 1.5\n" for e in (1, 2, 3, 4))
    second = "".join(f"Fine-Tune Epoch {e} | Train Loss: {1 - e / 10:.2f} | Val Loss: 0.5\n" for e in (1, 2, 3))
    both = runs(first + "--- Fine-tuning ---\n" + second)
    assert [run.steps.step.tolist() for run in both] == [[1, 2, 3, 4], [1, 2, 3]]
    assert column(both[1], "train_loss") == pytest.approx([0.9, 0.8, 0.7])


def test_a_bar_over_epochs_ends_the_epochs_of_the_bars_of_batches(runs):
    lines = ["0%|          | 0/3 [00:00<?, ?epoch/s]"]
    for e in range(3):
        lines += [
            f"{b * 25}%|#  | {b:.2f}/4.00 [00:01<00:09, 1.07batch/s, loss={3 - e - b / 10:.1f}]" for b in (1, 2, 3, 4)
        ]
        lines.append(f"{33 * e}%|#  | {e + 1}/3 [00:25<01:00, 25.4s/epoch, loss={2.6 - e:.1f}, val_loss={2.5 - e:.1f}]")
    (run,) = runs("".join(f"2025-06-14 22:56:54,451 - INFO - {line}\n" for line in lines))
    assert len(run.steps) == 12
    assert run.steps.columns["train_loss"].values[:4] == pytest.approx([2.9, 2.8, 2.7, 2.6])
    assert column(run, "val_loss") == [2.5, 1.5, 0.5]
    assert run.evaluations.step.tolist() == [4, 8, 12]


def test_a_bar_over_epochs_alone_has_a_row_an_epoch(runs):
    lines = [
        f"{5 * e}%|#  | {e}/20 [00:25<01:00, 2.4s/epoch, loss={3 - e / 10:.1f}]" for e in range(1, 9) for _ in (1, 2)
    ]
    (run,) = runs("\r".join(lines) + "\n")
    assert run.steps.step.tolist() == [*range(1, 9)]
    assert column(run, "train_loss") == pytest.approx([3 - e / 10 for e in range(1, 9)])


def test_a_card_of_names_and_numbers_is_one_step(runs):
    cards = "".join(
        "-" * 30
        + f"\n| rollout/         |        |\n|    ep_rew_mean   | {20 + e}.5   |\n| time/            |        |\n"
        + f"|    total_timesteps | {2048 * e} |\n| train/           |        |\n|    loss          | {e}.25 |\n"
        for e in range(1, 7)
    )
    (run,) = runs(cards + "-" * 30 + "\n")
    assert run.steps.step.tolist() == [2048 * e for e in range(1, 7)]
    assert column(run, "train_loss_agent") == [e + 0.25 for e in range(1, 7)]


def test_darknets_lines_without_a_name_for_the_step_are_read(runs):
    (run,) = runs(
        "".join(
            f" {i}: {9 - i}.25, {9 - i}.500000 avg loss, 0.001000 rate, 3.1 seconds, {64 * i} images\n"
            for i in range(1, 9)
        )
    )
    assert run.steps.step.tolist() == [*range(1, 9)]
    assert column(run, "train_loss") == [9 - i + 0.25 for i in range(1, 9)]
    assert column(run, "learning_rate") == pytest.approx([0.001] * 8)


def test_what_an_estimator_saves_of_an_evaluation_is_one(runs):
    lines = "".join(
        f"INFO:tensorflow:loss = {3 - i / 10:.1f}, step = {i}00 (3.1 sec)\n"
        f"INFO:tensorflow:Saving dict for global step {i}00: accuracy = 0.{i}, global_step = {i}00, loss = 3.5\n"
        for i in range(1, 9)
    )
    (run,) = runs(lines)
    assert run.evaluations.step.tolist() == [100 * i for i in range(1, 9)]
    assert column(run, "val_loss") == [3.5] * 8
    assert column(run, "train_loss") == pytest.approx([3 - i / 10 for i in range(1, 9)])


def test_spacys_table_is_read_by_its_letters(runs):
    header = (
        "E    #       LOSS TOK2VEC  LOSS NER  ENTS_F  SCORE \n---  ------  ------------  --------  ------  ------\n"
    )
    (run,) = runs(
        header + "".join(f"{i // 4:3d}  {200 * i:6d}  {9 - i:12.2f}  {5.5:8.2f}  70.12  0.71\n" for i in range(8))
    )
    assert run.steps.step.tolist() == [200 * i for i in range(8)]
    assert column(run, "train_loss") == [14.5 - i for i in range(8)]


def test_a_loop_in_chinese_is_read(runs):
    (run,) = runs("".join(f"第{i}轮 训练损失: {3 - i / 10:.1f} 验证损失: 3.5\n" for i in range(1, 9)))
    assert run.steps.step.tolist() == run.evaluations.step.tolist() == [*range(1, 9)]
    assert column(run, "val_loss") == [3.5] * 8


def test_models_that_print_their_names_before_the_epoch_are_not_joined(runs):
    lines = [f"Net_{name} Epoch {i}: Loss = {5 - i}.0\n" for name in ("a1", "b1") for i in (1, 2, 3)]
    assert [run.steps.columns["train_loss"].values.tolist() for run in runs("".join(lines))] == [[4, 3, 2], [4, 3, 2]]


def test_a_table_copied_from_a_notebook_is_read_with_its_accuracy_as_of_the_validation(runs):
    rows = "".join(f"{e}\t{'No log' if e < 3 else 3 - e / 10}\t{3 - e / 20:.2f}\t{e / 20:.2f}\n" for e in range(1, 9))
    header = "Epoch\tTraining Loss\tValidation Loss\tAccuracy\n"
    (run,) = runs(f"***** Running training *****\n [80/80 01:31, Epoch 8/8]\n{header}{rows}80.3 seconds used.\n")
    assert run.evaluations.step.tolist() == [*range(1, 9)]
    assert column(run, "train_loss") == pytest.approx([3 - e / 10 for e in range(3, 9)])
    assert column(run, "val_accuracy") == pytest.approx([e / 20 for e in range(1, 9)])


def test_t_and_v_before_a_loss_are_training_and_validation(runs):
    lines = "".join(
        f"Epoch: {e:3} | T_Loss {3 - e / 10:.2f} | T_acc 0.1 | V_Loss nan | V_acc.  nan\n" for e in range(1, 9)
    )
    (run,) = runs(lines)
    assert column(run, "train_loss") == pytest.approx([3 - e / 10 for e in range(1, 9)])
    assert len(run.evaluations) == 8


def test_a_misspelled_validation_is_one(runs):
    (run,) = runs(
        "".join(f"[Vaild] epoch {e} loss: {3 - e / 10:.2f}\n[Train] epoch {e} loss: 1.{e}\n" for e in range(1, 9))
    )
    assert column(run, "val_loss") == pytest.approx([3 - e / 10 for e in range(1, 9)])
