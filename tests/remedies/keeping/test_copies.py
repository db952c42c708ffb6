"""Copies of nested state."""

import torch

from lossdoctor.remedies.keeping.copies import copied, fresh, leaves, put_back, size_of


def test_a_copy_shares_no_tensor_with_the_original_nor_with_what_is_made_of_it():
    live = {"a": torch.ones(2), "list": [torch.ones(3), {"b": torch.ones(1)}], "n": 3, "none": None}
    saved = copied(live)
    for tensor in leaves(live):
        tensor.zero_()
    again = fresh(saved)
    assert torch.equal(again["a"], torch.ones(2))
    again["a"].zero_()
    assert torch.equal(fresh(saved)["a"], torch.ones(2))
    assert again["n"] == 3
    assert again["none"] is None
    assert torch.equal(again["list"][1]["b"], torch.ones(1))


def test_what_is_put_back_is_written_into_the_live_tensors():
    live = {"step": torch.tensor(3.0), "history": [torch.ones(2)], "n": 3}
    tensors = list(leaves(live))
    saved = copied(live)
    live["step"].add_(1)
    live["history"][0].zero_()
    live["n"], live["later"] = 4, torch.ones(1)
    assert put_back(live, saved) is live
    assert all(one is other for one, other in zip(leaves(live), tensors, strict=True))
    assert live["step"] == 3
    assert live["n"] == 3
    assert torch.equal(live["history"][0], torch.ones(2))
    assert "later" not in live


def test_a_list_that_grew_is_put_back_at_its_length():
    live = {"history": [torch.ones(2)]}
    saved = copied(live)
    live["history"].append(torch.zeros(2))
    put_back(live, saved)
    assert len(live["history"]) == 1


def test_a_tensor_of_another_shape_is_replaced():
    live = {"a": torch.ones(2)}
    saved = copied(live)
    live["a"] = torch.zeros(5)
    assert torch.equal(put_back(live, saved)["a"], torch.ones(2))


def test_the_size_is_in_bytes():
    assert size_of(copied({"a": torch.ones(3), "b": [torch.ones(2, dtype=torch.float64)], "n": 1})) == 28
