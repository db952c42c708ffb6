"""The promise that a monitor never breaks a training: a faulty instrument is switched off and named once."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any, ParamSpec

import torch

__all__ = ["Faults"]

_LOG = logging.getLogger("lossdoctor")
_P = ParamSpec("_P")


@cache
def _dynamo() -> tuple[Callable[[], object], Callable[..., Any]] | None:
    """What tells who gets frames to compile at this moment (None: nobody), and what keeps a function from it.

    Both are not public: None where this torch has them not.
    """
    try:
        running = import_module("torch._C._dynamo.eval_frame").get_eval_frame_callback
        return running, import_module("torch._dynamo.decorators").skip
    except (ImportError, AttributeError):
        return None


class Faults:
    """Instruments that failed. Each is named in one warning and asked no more."""

    def __init__(self) -> None:
        self.off: set[str] = set()
        self._guarded: set[str] = set()
        self._mentioned: set[str] = set()

    def guard(self, instrument: str, function: Callable[_P, None]) -> Callable[_P, None]:
        """The function for others to call: it raises nothing, does nothing after a fault, and is never compiled.

        torch.compiler.disable keeps dynamo out of our code where a user compiles a whole training step. Its wrapper
        costs as much as a hook of ours, so it is only gone through where dynamo is at work.
        """
        self._guarded.add(instrument)
        protected = self.protect(instrument, function)
        disabled: Callable[_P, None] = torch.compiler.disable(protected)
        dynamo = _dynamo()
        if dynamo is None:
            return disabled
        off, (running, skip) = self.off, dynamo

        def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
            if running() is None:
                if off and instrument in off:
                    return
                try:
                    function(*args, **kwargs)
                except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
                    self.report(instrument, error)
            else:
                disabled(*args, **kwargs)

        guarded_from_dynamo: Callable[_P, None] = skip(guarded)  # neither traced nor compiled itself
        return guarded_from_dynamo

    def protect(self, instrument: str, function: Callable[_P, None]) -> Callable[_P, None]:
        """The same for calls from guarded functions: a part that may fail without the whole."""
        off = self.off

        def protected(*args: _P.args, **kwargs: _P.kwargs) -> None:
            if instrument not in off:
                try:
                    function(*args, **kwargs)
                except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
                    self.report(instrument, error)

        return protected

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have every guarded function do nothing for a while: what is tried out is no part of the training."""
        resting = self._guarded - self.off
        self.off |= resting
        try:
            yield
        finally:
            self.off -= resting

    def report(self, instrument: str, error: BaseException) -> None:
        """Switch an instrument off because of an error, and say so once."""
        if instrument not in self.off:
            self.off.add(instrument)
            _LOG.warning(
                "lossdoctor: %s failed (%s: %s) and is switched off; the training is not affected",
                instrument,
                type(error).__name__,
                str(error).partition("\n")[0],
            )
            _LOG.debug("lossdoctor: where %s failed", instrument, exc_info=error)

    def mention(self, topic: str, message: str) -> None:
        """Say once for each topic what the user should know about the recording."""
        if topic not in self._mentioned:
            self._mentioned.add(topic)
            _LOG.warning("lossdoctor: %s", message)
