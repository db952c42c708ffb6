"""Everything lossdoctor raises on purpose.

    LossDoctorError
    ├── UsageError          the call or the command line is wrong
    │   └── RunDirectoryError   a run directory cannot be written, or is in use
    ├── LogError            a log or run directory cannot be read
    ├── RuleError           a rule file is wrong
    └── ConfigurationError  lossdoctor.toml, [tool.lossdoctor] or --set is wrong

A message is one line: what is wrong, where, and what to do about it. The command line prints it and exits with 2.
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "ConfigurationError",
    "LogError",
    "LossDoctorError",
    "RuleError",
    "RunDirectoryError",
    "UsageError",
    "nearest",
]


class LossDoctorError(Exception):
    """Anything lossdoctor raises on purpose."""


class UsageError(LossDoctorError):
    """The call or the command line is wrong."""


class RunDirectoryError(UsageError):
    """A run directory cannot be written, or another process is writing it."""


class LogError(LossDoctorError):
    """A log or a run directory cannot be read."""


class RuleError(LossDoctorError):
    """A rule file is wrong."""


class ConfigurationError(LossDoctorError):
    """lossdoctor.toml, [tool.lossdoctor] or --set is wrong."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The words "; did you mean 'x'?" if something known is spelled like `name`, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
