"""Who is told: the callback, the webhook, the log. Nothing of it may raise, wait or give the address away."""

import json
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from lossdoctor import notifying
from lossdoctor.errors import UsageError
from lossdoctor.findings import Diagnosis, Finding, Prescription
from lossdoctor.notifying import Notices, Webhook, webhook_from
from lossdoctor.reports.text import verdict_line


def _finding(rule="divergence", **others):
    values = {"severity": "error", "since": 5.0, "detected": 7.0, "message": f"{rule} happened", "family": "stability"}
    values |= {"title": "", "category": "unstable", "clock": "step"}
    return Finding(rule=rule, prescriptions=[Prescription(advice="Lower the LR.")], **(values | others))


def _diagnosis():
    finding = _finding()
    return Diagnosis(
        run="r", verdict="divergence", category="unstable", summary="", findings=[finding], status="crashed"
    )


@pytest.fixture
def mentioned():
    return []


@pytest.fixture
def service():
    """A webhook on this machine: its address, what it got, and the status it answers with."""
    got, state = [], {"status": 200}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(state["status"])
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/services/SECRET", got, state
    server.shutdown()
    thread.join()
    server.server_close()


def _notices(mentioned, **others):
    return Notices("runs/a", mention=lambda *what: mentioned.append(what), verdict_line=verdict_line, **others)


def _webhook(address, mentioned):
    return Webhook(address, mention=lambda *what: mentioned.append(what))


def test_a_callback_gets_every_new_finding_once(mentioned):
    got = []
    notices = _notices(mentioned, on_finding=got.append)
    for _ in range(2):
        notices.found(_finding())
    notices.found(_finding(detected=9.0))
    notices.found(_finding(severity="benign", detected=10.0))
    notices.found(_finding(family="recipe", detected=11.0))
    assert [finding.detected for finding in got] == [7, 9]


def test_a_callback_that_raises_is_mentioned_and_called_again(mentioned):
    calls = []

    def fails(finding):
        calls.append(finding)
        raise ValueError("no")

    notices = _notices(mentioned, on_finding=fails)
    notices.found(_finding())
    notices.found(_finding(detected=9.0))
    assert len(calls) == 2
    assert mentioned[0] == ("on_finding", "on_finding failed (ValueError: no)")


def test_the_end_is_one_greppable_line_in_the_log(mentioned, caplog):
    with caplog.at_level(logging.INFO, "lossdoctor"):
        _notices(mentioned).ended(_diagnosis())
    assert caplog.messages == [
        "lossdoctor: verdict=divergence category=unstable severity=error since=5 findings=1 status=crashed"
    ]
    assert caplog.records[0].levelno == logging.ERROR


def test_findings_that_come_together_are_one_message(service, mentioned):
    address, got, _ = service
    notices = _notices(mentioned, webhook=_webhook(address, mentioned))
    notices.found(_finding())
    notices.found(_finding("overfitting", severity="warning"))
    notices.found(_finding("plateau", severity="info"))
    notices.ended(_diagnosis())
    text = "\n".join(message["text"] for message in got)
    assert len(got) <= 2
    assert "error[divergence] in runs/a at step 7: divergence happened Help: Lower the LR." in text
    assert "warning[overfitting]" in text
    assert "plateau" not in text
    assert "verdict=divergence" in text
    assert mentioned == []


def test_a_rule_that_fires_without_end_is_sent_three_times(service, mentioned):
    address, got, _ = service
    notices = _notices(mentioned, webhook=_webhook(address, mentioned))
    for step in range(100):
        notices.found(_finding(detected=float(step)))
    notices.ended(_diagnosis())
    assert sum(message["text"].count("divergence happened") for message in got) == 3


def test_messages_keep_their_distance(service, mentioned, monkeypatch):
    address, got, _ = service
    monkeypatch.setattr(notifying, "_SPACING", 0.4)
    monkeypatch.setattr(notifying, "_GATHER", 0.01)
    webhook = _webhook(address, mentioned)
    for number in range(20):
        webhook.send(f"line {number}")
        time.sleep(0.05)
    webhook.close()
    assert 2 <= len(got) <= 6
    assert sum(message["text"].count("line ") for message in got) >= len(got)


def test_a_webhook_that_fails_is_given_up_and_its_address_stays_secret(service, mentioned, monkeypatch):
    address, got, state = service
    state["status"] = 500
    monkeypatch.setattr(notifying, "_SPACING", 0.0)
    monkeypatch.setattr(notifying, "_GATHER", 0.0)
    webhook = _webhook(address, mentioned)
    for number in range(30):
        webhook.send(f"line {number}")
        time.sleep(0.02)
    webhook.close()
    assert len(got) == 3
    assert mentioned == [("webhook", "the webhook at 127.0.0.1 failed (HTTP status 500); findings are in the log")]


def test_a_host_that_does_not_answer_holds_nobody_up(mentioned, monkeypatch):
    import socket

    monkeypatch.setattr(notifying, "_FAREWELL", 0.2)
    monkeypatch.setattr(notifying, "_TIMEOUT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        webhook = _webhook(f"http://127.0.0.1:{silent.getsockname()[1]}/x", mentioned)
        begun = time.perf_counter()
        webhook.send("line")
        assert time.perf_counter() - begun < 0.1
        webhook.close()
        assert time.perf_counter() - begun < 1.0
        webhook._thread.join(5)
    assert "SECRET" not in str(mentioned)


def test_what_a_log_holds_calls_nobody():
    slack = notifying._payload("hooks.slack.com", "<!channel> a & b")
    assert slack == {"text": "&lt;!channel&gt; a &amp; b"}
    discord = notifying._payload("discord.com", "@everyone")
    assert discord["allowed_mentions"] == {"parse": []}


def test_a_message_is_short_however_much_there_is_to_say():
    text = notifying._text([f"{number} " + "x" * 5000 for number in range(100)])
    assert len(text) <= 1_900
    assert "… 91 more" in text
    assert text.splitlines()[-1].startswith("99 ")


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "ftp://a/b", "hooks.slack.com/SECRET", "http://", "http://["]
)
def test_only_http_addresses_are_taken_and_a_wrong_one_is_not_repeated(address, monkeypatch):
    monkeypatch.delenv("LOSSDOCTOR_WEBHOOK", raising=False)
    with pytest.raises(UsageError) as error:
        webhook_from(address)
    assert "SECRET" not in str(error.value)


def test_the_environment_wins_and_can_switch_it_off(monkeypatch):
    monkeypatch.delenv("LOSSDOCTOR_WEBHOOK", raising=False)
    assert webhook_from("") == ""
    assert webhook_from("https://a/b") == "https://a/b"
    monkeypatch.setenv("LOSSDOCTOR_WEBHOOK", "off")
    assert webhook_from("https://a/b") == ""
    monkeypatch.setenv("LOSSDOCTOR_WEBHOOK", "https://c/d")
    assert webhook_from("https://a/b") == "https://c/d"
