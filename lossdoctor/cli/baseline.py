"""A list of findings that are known: a check in CI then fails for new ones only."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from lossdoctor.errors import UsageError
from lossdoctor.findings import ADVICE, Diagnosis

__all__ = ["Baseline"]


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of the file: the accepted rules of each run."""

    schema: Literal["lossdoctor.baseline/1"] = "lossdoctor.baseline/1"
    accepted: dict[str, list[str]] = {}


@dataclass(frozen=True, slots=True)
class Baseline:
    """Accepted rules by the names of runs, as in the file `path`.

    A run is named by its path as seen from the file, so that it does not matter where the command is called.
    """

    path: Path
    accepted: dict[str, list[str]]

    @classmethod
    def read(cls, path: Path) -> "Baseline":
        """The baseline in a file. Raises UsageError if there is none."""
        try:
            return cls(path, msgspec.json.decode(path.read_bytes(), type=_File).accepted)
        except OSError as error:
            raise UsageError(
                f"--baseline {path}: cannot be read ({error.strerror}); write it with --write-baseline"
            ) from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UsageError(f"--baseline {path}: no baseline ({error}); write it anew with --write-baseline") from None

    @classmethod
    def of(cls, diagnoses: Sequence[Diagnosis], path: Path) -> "Baseline":
        """A baseline that accepts everything found in these runs, to be written to `path`. Advice needs no consent."""
        found = {
            _name(diagnosis.run, path): sorted({one.rule for one in diagnosis.findings if one.family != ADVICE})
            for diagnosis in diagnoses
        }
        return cls(path, {run: rules for run, rules in sorted(found.items()) if rules})

    def write(self) -> None:
        """Write the file. Raises UsageError if that is not possible."""
        content = msgspec.json.format(msgspec.json.encode(_File(accepted=self.accepted)), indent=2)
        try:
            self.path.write_bytes(content + b"\n")
        except OSError as error:
            raise UsageError(f"--write-baseline {self.path}: cannot be written: {error.strerror}") from None

    def applied_to(self, diagnosis: Diagnosis) -> Diagnosis:
        """The same diagnosis, with what is accepted of it."""
        known = self.accepted.get(_name(diagnosis.run, self.path), [])
        found = {finding.rule for finding in diagnosis.findings}
        return msgspec.structs.replace(diagnosis, accepted=[rule for rule in known if rule in found])


def _name(run: str, path: Path) -> str:
    """A run's path relative to the directory of the baseline; what is no path here stays as it is."""
    try:
        relative = os.path.relpath(run, path.parent) if "://" not in run else run
    except ValueError:  # another drive
        return run
    return relative.replace(os.sep, "/")
