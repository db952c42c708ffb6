"""A Monitor tells of findings: to a callback, to a webhook, and in one line at its end."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from lossdoctor import Monitor
from lossdoctor.errors import ConfigurationError


@pytest.fixture
def service():
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/SECRET", got
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOSSDOCTOR_WEBHOOK", raising=False)


def _train(*, broken_from=None, steps=40, crash=False, **arguments):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(model, optimizer, "run", **arguments) as monitor:
        for step in range(steps):
            loss = model(torch.randn(8, 4)).square().mean()
            if broken_from is not None and step >= broken_from:
                loss = loss * float("nan")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(loss)
        if crash:
            raise RuntimeError("boom")
    return model.weight.detach().clone()


def _verdicts(caplog):
    return [message for message in caplog.messages if message.startswith("lossdoctor: verdict=")]


def test_a_callback_hears_of_a_finding_while_the_training_runs(caplog):
    got = []
    _train(broken_from=20, on_finding=got.append)
    assert "non_finite_loss" in [finding.rule for finding in got]
    assert len({(finding.rule, finding.detected) for finding in got}) == len(got)


def test_a_callback_that_raises_changes_nothing_and_is_named_once(caplog):
    def fails(finding):
        raise ValueError("no")

    assert torch.equal(_train(on_finding=fails), _train())
    _train(broken_from=20, on_finding=fails)
    assert caplog.text.count("on_finding failed (ValueError: no)") == 1


def test_the_end_of_a_run_is_one_greppable_line(caplog):
    with caplog.at_level(logging.INFO, "lossdoctor"):
        _train(broken_from=20)
    (line,) = _verdicts(caplog)
    assert line.startswith("lossdoctor: verdict=non_finite_loss category=unstable severity=error since=21 ")
    assert line.endswith(" status=finished run=run")


def test_the_line_tells_of_a_crash(caplog):
    with caplog.at_level(logging.INFO, "lossdoctor"), pytest.raises(RuntimeError):
        _train(crash=True)
    assert " status=crashed " in _verdicts(caplog)[0]


def test_nothing_is_said_where_nothing_is_judged(caplog):
    with caplog.at_level(logging.INFO, "lossdoctor"):
        _train(remediate="off")
    assert _verdicts(caplog) == []


@pytest.mark.parametrize("where", ["environment", "file"])
def test_a_webhook_gets_findings_and_the_verdict(service, where, monkeypatch, tmp_path, caplog):
    address, got = service
    if where == "environment":
        monkeypatch.setenv("LOSSDOCTOR_WEBHOOK", address)
    else:
        (tmp_path / "lossdoctor.toml").write_text(f'[notify]\nwebhook = "{address}"\n')
    with caplog.at_level(logging.DEBUG, "lossdoctor"):
        _train(broken_from=20)
    text = "\n".join(message["text"] for message in got)
    assert "error[non_finite_loss] in run at step 21" in text
    assert "verdict=non_finite_loss" in text
    assert "SECRET" not in caplog.text


def test_a_wrong_address_is_mentioned_without_it_and_the_training_goes_on(monkeypatch, caplog):
    monkeypatch.setenv("LOSSDOCTOR_WEBHOOK", "file:///SECRET")
    _train()
    assert "is no http:// or https:// address" in caplog.text
    assert "SECRET" not in caplog.text


def test_a_wrong_key_in_the_table_is_named(tmp_path):
    (tmp_path / "lossdoctor.toml").write_text('[notify]\nwebhok = "https://a/b"\n')
    with pytest.raises(ConfigurationError, match="notify: unknown key 'webhok'; did you mean 'webhook'"):
        _train()
