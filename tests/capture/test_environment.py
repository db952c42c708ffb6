"""lossdoctor.capture.environment: what is known of a training before its first step."""

import pytest
import torch
from torch import nn

from lossdoctor.capture import environment
from lossdoctor.capture.environment import describe
from lossdoctor.capture.names import layers_of
from lossdoctor.runs.info import facts


def described(model, optimizer=None):
    optimizer = optimizer or torch.optim.AdamW(model.parameters())
    return describe(model, [optimizer], layers_of(model))


class CausalSelfAttention(nn.Linear):
    """Attention by its name only."""


@pytest.mark.parametrize(
    ("model", "recurrent", "attention"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU()), 0, 0),
        (nn.Sequential(nn.GRU(4, 4)), 1, 0),
        (nn.Sequential(nn.LSTMCell(4, 4)), 1, 0),
        (nn.TransformerEncoderLayer(4, 2, batch_first=True), 0, 1),
        (nn.Sequential(CausalSelfAttention(4, 4)), 0, 1),
    ],
)
def test_recurrence_and_attention_are_seen(model, recurrent, attention):
    known = facts(described(model))
    assert (known["recurrent"], known["attention"]) == (recurrent, attention)


@pytest.mark.parametrize(
    ("norm", "sees_one_device"), [(nn.BatchNorm1d(4), 1), (nn.SyncBatchNorm(4), 0), (nn.LayerNorm(4), 0)]
)
def test_only_an_unsynchronized_batch_norm_sees_the_batch_of_one_device(norm, sees_one_device):
    model = nn.Sequential(nn.Linear(4, 4), norm)
    assert facts(described(model))["unsynchronized_batch_norm"] == sees_one_device


def test_weight_decay_on_normalization_is_that_of_its_groups():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    groups = [
        {"params": model[0].parameters(), "weight_decay": 0.1},
        {"params": model[1].parameters(), "weight_decay": 0},
    ]
    info = described(model, torch.optim.AdamW(groups))
    assert [group.norm_tensors for group in info.optimizers[0].groups] == [0, 2]
    assert facts(info)["norm_weight_decay"] == 0
    assert facts(described(model, torch.optim.AdamW(model.parameters(), weight_decay=0.1)))["norm_weight_decay"] == 0.1
    assert "norm_weight_decay" not in facts(described(model[0]))


@pytest.mark.parametrize(
    ("optimizer", "coupled"),
    [
        (torch.optim.Adam, 0.1),
        (torch.optim.NAdam, 0.1),
        (torch.optim.Adamax, 0.1),
        (torch.optim.AdamW, 0),
        (torch.optim.SGD, 0),
    ],
)
def test_weight_decay_is_coupled_in_adam_and_its_like(optimizer, coupled):
    model = nn.Linear(4, 4)
    known = facts(described(model, optimizer(model.parameters(), weight_decay=0.1)))
    assert known["coupled_weight_decay"] == coupled


def test_the_kind_of_an_optimizer_is_known_where_its_usual_rates_are():
    model = nn.Linear(4, 4)
    for optimizer, kind in ((torch.optim.RAdam, "is_adam"), (torch.optim.SGD, "is_sgd"), (torch.optim.Rprop, None)):
        known = facts(described(model, optimizer(model.parameters(), lr=0.1)))
        assert [name for name in ("is_adam", "is_sgd", "is_lion") if known[name]] == ([kind] if kind else [])


def test_a_training_on_the_cpu_uses_no_cuda_device():
    info = described(nn.Linear(4, 4))
    known = facts(info)
    assert known["cuda_devices"] == 0
    assert "compute_capability" not in known
    assert known["machine_memory"] > 1e8
    assert "out_of_memory" not in known, "it has not ended"


def test_the_weakest_device_decides_what_can_be_used(monkeypatch):
    devices = [torch.device("cuda", 0), torch.device("cuda", 1)]
    monkeypatch.setattr(environment, "accelerators", lambda _: devices)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9 - device.index, 0))
    known = facts(described(nn.Linear(4, 4)))
    assert (known["cuda_devices"], known["compute_capability"]) == (2, 8.0)


def test_a_container_may_have_less_memory_than_its_machine(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(environment, "_LIMITS", (str(limit),))
    whole = environment._memory()
    limit.write_text("max\n")
    assert environment._memory() == whole
    limit.write_text("1000000\n")
    assert environment._memory() == 1_000_000
