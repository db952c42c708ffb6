"""Everything lossdoctor raises on purpose.

    LossDoctorError
    ├── UsageError          the call or the command line is wrong
    │   └── RunDirectoryError   a run directory cannot be written, or is in use
    ├── LogError            a log or run directory cannot be read
    ├── RuleError           a rule file is wrong
    └── ConfigurationError  lossdoctor.toml, [tool.lossdoctor] or --set is wrong

A message is one line: what is wrong, where, and what to do about it. The command line prints it and exits with 2.
"""

__all__ = [
    "ConfigurationError",
    "LogError",
    "LossDoctorError",
    "RuleError",
    "RunDirectoryError",
    "UsageError",
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
