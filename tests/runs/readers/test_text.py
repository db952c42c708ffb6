"""Whatever a program prints, its losses are read with the places they belong to."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from lossdoctor.errors import LogError
from lossdoctor.runs.readers import text
from tests.runs.readers.printed_logs import EXPECTED, printed

REAL = Path(__file__).parents[4] / "shared" / "real_logs"


@pytest.fixture
def read(tmp_path):
    def from_text(content, name="train.log", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        (log,) = text.read(path)
        return log

    return from_text


def columns(log):
    return {name: dict(zip(one.at.tolist(), one.values.tolist(), strict=True)) for name, one in log.series.items()}


@pytest.mark.parametrize("program", EXPECTED)
def test_every_value_that_a_program_prints_is_read_with_its_place(program, read):
    found = columns(read(printed(program)))
    for name, values in EXPECTED[program].items():
        assert found.get(name, {}) == pytest.approx(values, nan_ok=True), name


@pytest.mark.parametrize("program", EXPECTED)
def test_what_is_printed_is_recognized_by_its_content(program, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(printed(program))
    assert text.detect(path, path.read_bytes()[:65536])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prose.txt", "We trained for 10 epochs. The loss was 0.3 at epoch 10 and accuracy 0.9.\n"),
        (
            "train.py",
            "step = 0\nfor epoch in range(10):\n    loss = 0.5\n    lr = 0.1\n# step 1: loss 2.0\n# step 2: loss 1\n",
        ),
        ("README.md", "# A model\n\n" + "It is good.\n" * 20 + "    step 1: loss 2.0\n    step 2: loss 1.0\n"),
        ("results.csv", "epoch,loss\n1,0.5\n2,0.4\n"),
        ("requirements.txt", "torch==2.1.0\nnumpy>=1.26\n" * 20),
        ("access.log", '10.0.0.1 - - [10/Oct/2000:13:55:36] "GET /epoch/3 HTTP/1.0" 200 2326\n' * 20),
        ("binary.log", "\x00\x01\x02" * 1000 + "step 1: loss 2\nstep 2: loss 1\n"),
        ("empty.log", ""),
    ],
)
def test_what_is_no_log_is_not_taken_for_one(name, content, tmp_path):
    path = tmp_path / name
    path.write_text(content)
    assert not text.detect(path, path.read_bytes()[:65536])


def test_a_log_behind_a_long_preamble_is_recognized_by_its_end(tmp_path):
    path = tmp_path / "run.txt"
    path.write_text(
        "x = [1, 2, 3]  # source code\n" * 10_000 + "".join(f"step:{i}/99 train_loss:{i}\n" for i in range(99))
    )
    assert text.detect(path, path.read_bytes()[:65536])
    assert len(text.read(path)[0].series["train_loss"].at) == 99


def test_an_evaluation_beside_a_training_goes_where_its_heading_says(read):
    log = read("Epoch 1 step 10 loss 0.5\nValidation:\n  loss: 0.7\n  accuracy: 0.8\nEpoch 2 step 20 loss 0.4\n")
    assert columns(log)["val/loss"] == {1: 0.7}
    assert columns(log)["val/accuracy"] == {2: 0.8}
    assert columns(log)["loss"] == {0: 0.5, 3: 0.4}


def test_of_several_ranks_the_first_is_used(read):
    log = read(
        "".join(f"[rank{rank}]: step {step}: loss {3 - step / 10 + rank}\n" for step in range(12) for rank in (1, 0))
    )
    assert log.series["loss"].values.tolist() == pytest.approx([3 - step / 10 for step in range(12)])
    assert "processes" in log.warnings[0]


def test_what_only_the_last_rank_prints_is_kept(read):
    log = read(
        "[default0]:step 1: lr 0.1\n[default7]:step 1: loss 2\n[default0]:step 2: lr 0.1\n[default7]:step 2: loss 1\n"
    )
    assert log.series["loss"].values.tolist() == [2, 1]
    assert log.series["lr"].values.tolist() == [0.1, 0.1]


def test_ranks_that_do_not_say_who_they_are_are_averaged(read):
    log = read("".join(f"step {step}: loss {3 - step / 10 + rank}\n" for step in range(12) for rank in (0, 1)))
    assert log.series["loss"].values.tolist() == pytest.approx([3.5 - step / 10 for step in range(12)])


def test_a_restart_is_left_as_it_was_printed(read):
    once = [f"step {step}: loss {3 - step / 10}\n" for step in range(12)]
    log = read("".join(once + once))
    assert log.series["step"].values.tolist() == [*range(12), *range(12)]
    assert not log.warnings


def test_a_line_that_is_printed_twice_counts_once(read):
    log = read("step 1: loss 3\nstep 1: loss 3\nstep 2: loss 2\nstep 2: loss 2\n")
    assert log.series["loss"].values.tolist() == [3, 2]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
def test_a_log_of_another_encoding_is_read_alike(encoding, read):
    assert read("step 1: loss 3\r\nstep 2: loss 2\r\n", encoding=encoding).series["loss"].values.tolist() == [3, 2]


def test_settings_that_were_printed_first_are_known(read):
    log = read("Namespace(lr=0.1, mixup=False, model='resnet, wide', epochs=90)\nepoch 1: loss 2\nepoch 2: loss 1\n")
    assert log.config == {"lr": 0.1, "mixup": False, "model": "resnet, wide", "epochs": 90}


def test_a_mean_over_an_epoch_is_called_one(read):
    assert read(printed("keras_3_in_colour")).rows_are_means
    assert read(printed("hf_trainer")).rows_are_means
    assert not read(printed("nanogpt")).rows_are_means


def test_a_log_without_losses_is_refused_with_a_remedy(read):
    with pytest.raises(LogError, match=r"train\.log: no line with a loss was found; lines should say"):
        read("nothing here\n")


@pytest.mark.skipif(not REAL.is_dir(), reason="the collection of real logs is not there")
def test_the_real_transformer_xl_log_is_read_completely():
    path = REAL / "txl_adam" / "log-adam.txt"
    (log,) = text.read(path)
    content = path.read_text()
    rows = re.findall(
        r"\| epoch +(\d+) step +(\d+) \| +\d+ batches \| lr (\S+) \| ms/batch +(\S+) \| loss +(\S+)", content
    )
    evaluations = re.findall(r"at step +(\d+) \| time: .*? valid loss +(\S+) \|", content)
    assert (len(rows), len(evaluations)) == (1000, 50)
    loss, step = log.series["loss"], log.series["step"]
    np.testing.assert_array_equal(loss.values, [float(row[4]) for row in rows])
    np.testing.assert_array_equal(step.values[loss.at], [int(row[1]) for row in rows])
    np.testing.assert_array_equal(log.series["lr"].values, [float(row[2]) for row in rows])
    np.testing.assert_array_equal(log.series["ms/batch"].values, [float(row[3]) for row in rows])
    np.testing.assert_array_equal(log.series["val/loss"].values, [float(value) for _, value in evaluations])
    np.testing.assert_array_equal(step.values[log.series["val/loss"].at], [int(at) for at, _ in evaluations])
    assert log.series["test/loss"].values.tolist() == [3.19]
    assert log.config["max_step"] == 200000


@pytest.mark.skipif(not REAL.is_dir(), reason="the collection of real logs is not there")
def test_the_real_gluoncv_log_is_read_completely():
    (path,) = (REAL / "gluon_hmdb51_i3d").iterdir()
    (log,) = text.read(path)
    content = path.read_text()
    training = re.findall(r"\[Epoch (\d+)\] training: accuracy=(\S+)\s+loss=(\S+)", content)
    validation = re.findall(r"\[Epoch (\d+)\] validation: acc-top1=(\S+) acc-top5=(\S+) loss=(\S+)", content)
    batches = re.findall(r"Epoch\[(\d+)\] Batch \[(\d+)\]/\[(\d+)\].*?loss=(\S+)", content)
    assert (len(training), len(validation)) == (35, 35)
    np.testing.assert_array_equal(log.series["train/loss"].values, [float(row[2]) for row in training])
    np.testing.assert_array_equal(log.series["val/loss"].values, [float(row[3]) for row in validation])
    np.testing.assert_array_equal(log.series["val/acc-top1"].values, [float(row[1]) for row in validation])
    np.testing.assert_array_equal(log.series["loss"].values, [float(row[3]) for row in batches])
    np.testing.assert_array_equal(log.series["epoch"].values[log.series["val/loss"].at], range(35))
    assert (np.diff(log.series["step"].values) >= 0).all()
    assert log.config["mixup"] is False


@pytest.mark.skipif(not REAL.is_dir(), reason="the collection of real logs is not there")
def test_the_real_mmdetection_text_says_what_its_json_says():
    (path,) = (REAL / "mmdet_1rec").glob("*.log")
    (log,) = text.read(path)
    record = json.loads(Path(f"{path}.json").read_text().splitlines()[1])
    for name in ("loss", "loss_cls", "loss_bbox", "loss_rpn_cls", "loss_rpn_bbox"):
        assert log.series[name].values.tolist() == pytest.approx([record[name]], abs=1e-4)
    assert log.series["step"].values.tolist() == [record["iter"]]


@pytest.mark.filterwarnings("default")  # theirs
def test_what_the_hf_trainer_prints_today_is_what_it_keeps(tmp_path, capfd):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    import torch

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)

        def forward(self, x, labels):
            logits = self.layer(x)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    data = [{"x": torch.tensor([i % 3, i % 5]).float(), "labels": torch.tensor(i % 2)} for i in range(32)]
    arguments = transformers.TrainingArguments(
        str(tmp_path), logging_steps=1, eval_strategy="epoch", save_strategy="no", report_to=[], use_cpu=True
    )
    trainer = transformers.Trainer(Model(), arguments, train_dataset=data, eval_dataset=data)
    trainer.train()
    path = tmp_path / "train.log"
    printed = capfd.readouterr()
    path.write_text(printed.out + printed.err)
    (log,) = text.read(path)
    kept = trainer.state.log_history
    for name in ("loss", "learning_rate", "grad_norm", "eval_loss"):
        assert log.series[name].values.tolist() == pytest.approx([row[name] for row in kept if name in row], rel=1e-3)
    assert log.format == "Transformers"
