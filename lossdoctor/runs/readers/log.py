"""What a reader hands over: the columns of a foreign log under the names they were logged by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Log", "Series"]


@dataclass(frozen=True, slots=True)
class Series:
    """One logged quantity: its values, float64 of shape (points,), where it was logged only.

    A value that was logged as not finite is NaN or Inf here; where nothing was logged there is no point. `at` holds,
    for each value, the number of the log's row it came from: ascending, not necessarily every row.
    """

    values: npt.NDArray[np.float64]
    at: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Log:
    """One training, as a foreign log has it, before anything is known of what its columns mean.

    A row is a line of the file (or all values logged at one step, for formats without lines). Columns keep the names
    they were logged by, "split/name" where the format has splits (TensorBoard directories, "train: loss 1.2"). `step`
    and `epoch` are ordinary columns where the format names them.
    """

    path: Path
    format: str
    series: Mapping[str, Series]
    rows: int
    name: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    started: float | None = None
    warnings: Sequence[str] = ()
    resumed: Sequence[float] = ()
    """Steps at which the training was resumed, where the reader has already left out what was superseded."""
    rows_are_means: bool = False
    """Whether a row is itself a mean over many steps, where the columns' names do not say so."""
