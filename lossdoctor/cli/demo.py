"""`lossdoctor demo`: train a real network with a fault, diagnose it, cure it."""

import sys

from lossdoctor.cli.output import console_on
from lossdoctor.errors import UsageError

__all__ = ["demo"]


def demo() -> None:
    """Train a small real network with a fault, diagnose it, cure it. Takes about a minute; needs no network."""
    try:
        from lossdoctor.demo import run_demo
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "lossdoctor":
            raise
        raise UsageError(f"the demo needs {error.name}; install it with: pip install lossdoctor[demo]") from None
    run_demo(console_on(sys.stdout))
