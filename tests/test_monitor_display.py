"""A Monitor at a prompt and in a notebook: what it records where, and the curves so far."""

import torch

from lossdoctor import Monitor


def _train(monitor, model, optimizer, steps):
    for _ in range(steps):
        loss = model(torch.ones(4, 3)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        monitor.step(loss)


def test_a_monitor_says_what_it_records_and_shows_it_while_it_does(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(model, optimizer, run_dir=tmp_path / "run") as monitor:
        _train(monitor, model, optimizer, 30)
        assert repr(monitor) == f"<Monitor of '{tmp_path / 'run'}': recording, step 30>"
        assert monitor._repr_html_() is None or "lossdoctor" in monitor._repr_html_()
    assert repr(monitor).endswith(": closed, step 30>")
    shown = monitor._repr_html_()
    assert '<header class="verdict' in shown
    assert '<path class="line train' in shown
    assert "<script" not in shown


def test_a_monitor_that_only_records_shows_its_curves(tmp_path):
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(model, optimizer, run_dir=tmp_path / "run", remediate="off") as monitor:
        _train(monitor, model, optimizer, 5)
    assert '<path class="line train' in monitor._repr_html_()


def test_a_monitor_that_is_off_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("LOSSDOCTOR", "off")
    model = torch.nn.Linear(3, 1)
    monitor = Monitor(model, torch.optim.SGD(model.parameters(), lr=0.01), run_dir=tmp_path / "run")
    assert repr(monitor) == "<Monitor: off>"
    assert monitor._repr_html_() is None
