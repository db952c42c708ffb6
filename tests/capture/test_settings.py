"""The optimizer's settings: read at every step, written down as they are in force."""

import pytest
import torch

from lossdoctor.capture.record import Record, complete
from lossdoctor.capture.ring import Drain
from lossdoctor.capture.rows import Rows
from lossdoctor.capture.settings import SettingsReader


def optimizer(kind=torch.optim.AdamW, **options):
    return kind([torch.nn.Parameter(torch.ones(3))], **({"lr": 0.1} | options))


def read(reader, *, several=False):
    record = Record(norms_due=False)
    reader.read(record, Drain(), several=several)
    return record


def values(record):
    return {**record.settings, **record.values}


def test_what_repeats_is_one_mapping_for_all_records():
    reader = SettingsReader(optimizer(), first_group=0)
    first = read(reader)
    assert values(first) == {"learning_rate": 0.1, "momentum": 0.9, "beta2": 0.999, "weight_decay": 0.01}
    assert read(reader).settings is first.settings


@pytest.mark.parametrize(
    ("name", "value", "signal"),
    [("lr", 0.2, "learning_rate"), ("betas", (0.8, 0.999), "momentum"), ("weight_decay", 0.5, "weight_decay")],
)
def test_a_change_of_any_setting_is_seen_at_its_step(name, value, signal):
    watched = optimizer()
    reader = SettingsReader(watched, first_group=0)
    before = values(read(reader))
    watched.param_groups[0][name] = value
    after = values(read(reader))
    expected = value[0] if name == "betas" else value
    assert after == {**before, signal: expected}
    watched.param_groups[0][name] = watched.defaults[name]
    assert values(read(reader)) == before


def test_a_tensor_in_place_of_a_number_is_read_at_every_step():
    watched = optimizer(torch.optim.SGD)
    reader = SettingsReader(watched, first_group=0)
    assert values(read(reader))["learning_rate"] == 0.1
    rate = watched.param_groups[0]["lr"] = torch.tensor(0.5)
    assert values(read(reader))["learning_rate"] == 0.5
    rate.mul_(2)
    assert values(read(reader))["learning_rate"] == 1.0


def test_a_rate_without_a_number_breaks_nothing():
    watched = optimizer(torch.optim.SGD)
    reader = SettingsReader(watched, first_group=0)
    read(reader)
    watched.param_groups[0]["lr"] = torch.tensor(0.5, device="meta")
    assert "learning_rate" not in values(read(reader))


def test_groups_with_settings_of_their_own_and_groups_that_come_later_are_seen():
    watched = optimizer(torch.optim.SGD, momentum=0.9)
    reader = SettingsReader(watched, first_group=0)
    read(reader)
    watched.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.3, "betas": (0.5, 0.6)})
    found = values(read(reader, several=True))
    assert (found["learning_rate"], found["learning_rate_group0"], found["learning_rate_group1"]) == (0.3, 0.1, 0.3)
    del watched.param_groups[1]["lr"]
    assert values(read(reader, several=True))["learning_rate"] == 0.1


def test_records_that_share_settings_and_records_with_values_of_their_own_end_in_one_column():
    watched = optimizer()
    reader = SettingsReader(watched, first_group=0)
    rows = Rows()
    expected = []
    for number in range(12):
        watched.param_groups[0]["lr"] = 0.1 if number < 6 else 0.1 * number
        record = read(reader)
        record.step = float(number)
        if number in {2, 7}:
            record.values["learning_rate"] = 9.0  # what was noted in the record itself counts
        if number == 3:
            record.values["grad_norm"] = 5.0
        if number == 9:
            record.settings = {}
        complete(record, uses_scaler=False)
        rows.steps.append(record)
        expected.append(9.0 if number in {2, 7} else watched.param_groups[0]["lr"])
    columns = rows.take().steps.columns
    rate = columns["learning_rate"]
    assert rate.mask().tolist() == [number != 9 for number in range(12)]
    assert [value for at, value in enumerate(rate.values.tolist()) if at != 9] == pytest.approx(
        [value for at, value in enumerate(expected) if at != 9]
    )
    assert columns["weight_decay"].mask().sum() == 11
    assert columns["grad_norm"].mask().tolist() == [number == 3 for number in range(12)]
