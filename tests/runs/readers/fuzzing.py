"""What every reader must withstand."""

import numpy as np
from hypothesis import strategies as st

from lossdoctor.errors import LogError
from lossdoctor.runs.readers import logs_at, runs_of


@st.composite
def damaged(draw, content):
    """The content of a file with some bytes changed and its end cut off."""
    content = bytearray(content)
    for _ in range(draw(st.integers(0, 10))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))])


def read_or_refuse(path):
    """Read a file; whatever is in it, there are sound columns or one line that names the file."""
    message = None
    try:
        for log in logs_at(path):
            for series in log.series.values():
                assert len(series.values) == len(series.at)
                assert (np.diff(series.at) > 0).all()
                assert not len(series.at) or 0 <= series.at[0] <= series.at[-1] < log.rows
            runs_of(log)
    except LogError as error:
        message = str(error)
    assert message is None or (str(path) in message and "\n" not in message)
