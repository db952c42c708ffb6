"""Who is told of new findings while a training runs: the log at its end, a callback of the user's, a webhook."""

import json
import logging
import os
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from lossdoctor.errors import UsageError
from lossdoctor.findings import ADVICE, SEVERITIES, Diagnosis, Finding

__all__ = ["Notices", "Webhook", "webhook_from"]

_LOG = logging.getLogger("lossdoctor")
_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING}

_TIMEOUT = 5.0
_SPACING = 10.0
"""Seconds between two messages; what comes meanwhile goes into one."""
_GATHER = 0.5
_MESSAGES = 50
"""Messages of one run, the last one aside."""
_LINES = 10
_LENGTH = 1_900
"""Discord takes 2,000 characters."""
_EPISODES = 3
"""Episodes of one rule that are sent."""
_FAILURES = 3
_FAREWELL = 3.0
"""Seconds that the end of a training waits for the last message."""

Mention: TypeAlias = Callable[[str, str], None]
"""Says a message once for each topic."""


def webhook_from(configured: str) -> str:
    """The address to send findings to: LOSSDOCTOR_WEBHOOK, else the configured one; empty for none.

    Raises:
        UsageError: It is no http or https address. The message does not repeat it: it is a secret.
    """
    address = os.environ.get("LOSSDOCTOR_WEBHOOK", configured).strip()
    if address.lower() in {"", "off"}:
        return ""
    try:
        parts = urllib.parse.urlsplit(address)
        known = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        known = False
    if not known:
        raise UsageError("the webhook (LOSSDOCTOR_WEBHOOK, [notify] webhook) is no http:// or https:// address")
    return address


class Notices:
    """Tells each finding once, to the callback and to the webhook, and the verdict at the end, also to the log.

    `mention` says once what went wrong; nothing here raises, and nothing but the callback takes the training's time.
    """

    def __init__(
        self,
        run: str,
        *,
        mention: Mention,
        verdict_line: Callable[[Diagnosis], str],
        on_finding: Callable[[Finding], object] | None = None,
        webhook: "Webhook | None" = None,
    ) -> None:
        self._run, self._mention, self._verdict_line = run, mention, verdict_line
        self._on_finding, self._webhook = on_finding, webhook
        self._told: set[tuple[str, float]] = set()
        self._sent: Counter[str] = Counter()

    def found(self, finding: Finding) -> None:
        """Tell of a finding, unless it is harmless, advice, or was told before."""
        key = (finding.rule, finding.detected)
        if finding.severity == "benign" or finding.family == ADVICE or key in self._told:
            return
        self._told.add(key)
        if self._on_finding is not None:
            try:
                self._on_finding(finding)
            except Exception as error:  # noqa: BLE001  whatever it is, the training goes on
                self._mention("on_finding", f"on_finding failed ({type(error).__name__}: {error})")
        is_grave = SEVERITIES.index(finding.severity) >= SEVERITIES.index("warning")
        if self._webhook is not None and is_grave and self._sent[finding.rule] < _EPISODES:
            self._sent[finding.rule] += 1
            self._webhook.send(_line(self._run, finding))

    def ended(self, diagnosis: Diagnosis) -> None:
        """Tell how it ended."""
        line = self._verdict_line(diagnosis)
        _LOG.log(_LEVELS.get(diagnosis.severity, logging.INFO), "%s", line)
        if self._webhook is not None:
            self._webhook.send(line)
            self._webhook.close()


class Webhook:
    """Posts messages as Slack, Discord, Mattermost and their like take them, from a thread of its own.

    The thread begins with the first message. After a few failures in a row the webhook is given up.
    """

    def __init__(self, address: str, *, mention: Mention) -> None:
        self._address, self._mention = address, mention
        self._host = urllib.parse.urlsplit(address).hostname or ""
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._is_off = False
        self._hurry = threading.Event()

    def send(self, line: str) -> None:
        """Queue a line."""
        if self._is_off or os.getpid() != self._process:  # a forked child has no thread to send with
            return
        self._queue.put(line)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="lossdoctor-webhook", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                self._is_off = True

    def close(self) -> None:
        """Send what is queued; wait for it a few seconds at most."""
        if self._thread is not None and os.getpid() == self._process:
            self._queue.put(None)
            self._hurry.set()
            if self._thread.is_alive():
                self._thread.join(_FAREWELL)

    def _work(self) -> None:
        failures = sent = 0
        is_last = False
        while not (is_last or self._is_off):
            lines, is_last = self._gathered()
            if lines and (sent < _MESSAGES or is_last):
                why = self._post(_text(lines))
                failures = failures + 1 if why else 0
                sent += 1
                if why and (failures >= _FAILURES or is_last):
                    self._is_off = True
                    self._mention("webhook", f"the webhook at {self._host} failed ({why}); findings are in the log")
            self._hurry.wait(_SPACING)

    def _gathered(self) -> tuple[list[str], bool]:
        """The next line and those that come right behind it, and whether the end is among them."""
        lines: list[str] = []
        deadline: float | None = None
        while True:
            try:
                wait = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                line = self._queue.get(timeout=wait) if wait != 0.0 else self._queue.get_nowait()
            except queue.Empty:
                return lines, False
            if line is None:
                return lines, True
            lines.append(line)
            deadline = deadline or time.monotonic() + _GATHER

    def _post(self, text: str) -> str:
        """Send one message; why that failed, without the address, or nothing."""
        body = json.dumps(_payload(self._host, text)).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "lossdoctor"}
        try:
            request = urllib.request.Request(self._address, body, headers)  # noqa: S310  the scheme was checked
            with urllib.request.urlopen(request, timeout=_TIMEOUT):  # noqa: S310
                return ""
        except urllib.error.HTTPError as error:
            return f"HTTP status {error.code}"
        except Exception as error:  # noqa: BLE001  messages of http.client may hold the address
            return type(error).__name__


def _line(run: str, finding: Finding) -> str:
    """A finding in one line."""
    fix = f" Help: {finding.prescriptions[0].advice}" if finding.prescriptions else ""
    return f"{finding.severity}[{finding.rule}] in {run} at step {finding.detected:.0f}: {finding.message}{fix}"


def _text(lines: Sequence[str]) -> str:
    """A message of at most so many lines and characters."""
    shown = list(lines[:_LINES])
    if len(lines) > _LINES:
        shown = [*lines[: _LINES - 2], f"… {len(lines) - _LINES + 1} more", lines[-1]]
    text = "\n".join(" ".join(line.split())[: _LENGTH // len(shown)] for line in shown)
    return text[:_LENGTH]


def _payload(host: str, text: str) -> dict[str, Any]:
    """The message as the service takes it. Nothing in a log may call a channel together."""
    if host.endswith(("discord.com", "discordapp.com")):
        return {"content": text, "allowed_mentions": {"parse": []}}
    return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
