"""Tables: CSV and TSV files of any training that have a header with a step, an epoch or a loss in it.

Lightning's CSVLogger (sparse rows), Keras' CSVLogger, Ultralytics and YOLOv5 (padded), timm's summary.csv, AlgoPerf's
measurements.csv, exports of Weights & Biases, and tables with many runs below each other.
"""

import codecs
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from lossdoctor.errors import LogError
from lossdoctor.runs.collecting import MAX_COLUMNS, number
from lossdoctor.runs.readers.log import Log, Series
from lossdoctor.runs.readers.long_tables import Table, is_long, split
from lossdoctor.runs.readers.names import Name, is_training_name, understand
from lossdoctor.runs.readers.settings import flat_settings

__all__ = ["FORMAT", "could_be", "detect", "read"]

FORMAT = "CSV"

_DELIMITERS = ",;\t|"
_BLANK = ["", "NA", "N/A", "#N/A", "None", "none", "null", "-", "--", "<NA>", "NULL"]
_HEAD = 65_536
_BLOCK = 8_000_000
_LARGEST = 4 * 1024**3
_FEW_ROWS = 3
_LONGEST_SETTINGS = 100_000
_MOMENT = re.compile(r"[\d:./ ,TZ+-]*\d[\d:./ ,TZ+-]*")
_SETTINGS = ("args.yaml", "hparams.yaml", "opt.yaml")
_Cells: TypeAlias = "pa.ChunkedArray[Any]"

_NO = pa.scalar(value=False)
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def detect(path: Path, head: bytes) -> bool:
    """A table whose header names an axis and something a training measures, or a loss over some rows of numbers."""
    if path.is_dir():
        return False
    found = _header(head)
    if found is None:
        return False
    names, rows = found
    known = [understand(name) for name in names]
    if len(names) == 1:  # nothing but losses
        return known[0].role == "loss" and len(rows) >= _FEW_ROWS and all(number(row[0]) is not None for row in rows)
    axis = any(name.role in {"step", "epoch"} for name in known)
    measures = [place for place, name in enumerate(names) if is_training_name(_own_name(name))]
    if not rows or not (measures or is_long(names, rows)):
        return False
    if len(rows) == 1 and all(name.split == "test" for name in known if name.role in {"loss", "accuracy", "metric"}):
        return False  # what Trainer.test() leaves behind
    if not axis and (_lists_things(names, rows) or not _is_about_training(known)):
        return False
    losses = [place for place in measures if understand(_own_name(names[place])).role in {"loss", "perplexity"}]
    looked_at = measures if axis else losses
    numeric = sum(any(place < len(row) and number(row[place]) is not None for place in looked_at) for row in rows)
    if axis and is_long(names, rows):
        return True
    return numeric > 0 and (axis or (len(rows) >= _FEW_ROWS and numeric > len(rows) // 2))


def could_be(path: Path, head: bytes) -> bool:
    """Whether a file is a table with an axis, or with a column of numbers, whatever its columns are called."""
    found = None if path.is_dir() else _header(head)
    if found is None or len(found[0]) == 1:
        return False
    names, rows = found
    if any(understand(name).role in {"step", "epoch"} for name in names):
        return True
    numeric = [sum(place < len(row) and number(row[place]) is not None for row in rows) for place in range(len(names))]
    return max(numeric) >= max(_FEW_ROWS, len(rows) / 2) and not _lists_things(names, rows)


def read(path: Path) -> list[Log]:
    """Read a table, one log for every run in it. Raises LogError where it is no table."""
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise LogError(f"{path}: a table of {size / 1e9:.0f} GB; give a part of it")
        with path.open("rb") as file:
            head = file.read(_HEAD)
            found = _header(head)
            if found is None:
                raise LogError(f"{path}: no table with a header line; name the columns in the first line")
            encoding = _encoding_of_all(file, _encoding(head))
            table, warnings = _table(path, file, head, found[0], encoding)
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from None
    format_name = _format_of(found[0])
    config = _settings(path)
    return [
        Log(path, format_name, part.series, part.rows, name=part.name, config=config, warnings=warnings)
        for part in split(table)
    ]


def _is_about_training(known: Sequence[Name]) -> bool:
    """Whether columns without an axis are those of a training: its loss, and mostly things that trainings log."""
    trains = any(name.role in {"loss", "perplexity"} and name.split in {"", "train"} for name in known)
    return trains and sum(name.role != "" for name in known) * 2 >= len(known)


def _lists_things(names: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether each row is of another thing, by the words that name it, as in a table of results; times are no names."""
    for place in range(len(names)):
        words = {row[place] for row in rows if place < len(row)}
        if len(words) == len(rows) and all(number(word) is None and not _MOMENT.fullmatch(word) for word in words):
            return True
    return False


def _own_name(name: str) -> str:
    """The name of a column without the run that Weights & Biases puts before it in its exports."""
    return name.rsplit(" - ", 1)[-1]


def _encoding(head: bytes) -> str:
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding
    try:
        head[:-4].decode("utf-8") if len(head) > 4 else head.decode("utf-8")  # noqa: PLR2004  a letter may be cut off
    except UnicodeDecodeError as error:
        return "utf-8" if error.start > len(head) - 8 else "latin-1"
    return "utf-8"


def _encoding_of_all(file: BinaryIO, likely: str) -> str:
    """The likely encoding if all of the file is in it, else the one in which all bytes mean something."""
    decoder = codecs.getincrementaldecoder(likely)()
    file.seek(0)
    try:
        while chunk := file.read(_BLOCK):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeError:
        likely = "latin-1"
    file.seek(0)
    return likely


def _header(head: bytes) -> tuple[list[str], list[list[str]]] | None:
    """The names of the columns and the first rows; None for what is no table."""
    encoding = _encoding(head)
    if b"\0" in head and not encoding.startswith("utf-16"):
        return None
    text = head.decode(encoding, "replace")
    lines = [line for line in text[: 60_000 if len(head) >= _HEAD else None].splitlines() if line.strip()]
    if len(lines) < 2:  # noqa: PLR2004  a header and a row
        return None
    delimiter = _delimiter(lines[0])
    names = _cells(lines[0], delimiter)
    if not 1 <= len(names) <= MAX_COLUMNS or sum(number(name) is None for name in names if name) < len(names) // 2 + 1:
        return None
    if any(len(name) > 200 for name in names):  # noqa: PLR2004  a line of prose or code
        return None
    rows = [_cells(line, delimiter) for line in lines[1:200]]
    if delimiter == ";":  # where commas are decimal points
        rows = [[cell.replace(",", ".") for cell in row] for row in rows]
    return names, rows


def _delimiter(line: str) -> str:
    return max(_DELIMITERS, key=line.count)


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        cells = next(csv.reader(io.StringIO(line), delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        cells = line.split(delimiter)
    return [cell.strip() for cell in cells]


def _table(
    path: Path, file: BinaryIO, head: bytes, names: Sequence[str], encoding: str
) -> tuple[Table, tuple[str, ...]]:
    text = head.decode(encoding, "replace")
    before, first = next((place, line) for place, line in enumerate(text.splitlines()) if line.strip())
    delimiter = _delimiter(first)
    skipped: list[int | None] = []

    def skip(row: arrow_csv.InvalidRow) -> Literal["skip", "error"]:
        skipped.append(row.number)
        return "skip"

    # Names may repeat; pandas writes rows with a leading index without a name.
    own = [name or f"column {place}" for place, name in enumerate(names, 1)]
    unique = [name if own.index(name) == place else f"{name}.{place}" for place, name in enumerate(own)]
    decimal = "," if delimiter == ";" and _has_decimal_commas(text) else "."
    try:
        table = arrow_csv.read_csv(
            file,
            read_options=arrow_csv.ReadOptions(
                column_names=unique,
                skip_rows=before + 1,
                encoding=encoding,
                use_threads=False,
                block_size=_BLOCK,
            ),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, invalid_row_handler=skip),
            convert_options=arrow_csv.ConvertOptions(
                null_values=_BLANK,
                strings_can_be_null=True,
                decimal_point=decimal,
                column_types=dict.fromkeys(unique, pa.string()) if len(head) < _HEAD else None,
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeError, ValueError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise LogError(f"{path}: not a table: {reason}; check the file") from None
    warnings = (f"{path}: {len(skipped)} rows have another number of cells than the header; they were left out.",)
    return _numeric(table, names, decimal), warnings if skipped else ()


def _has_decimal_commas(text: str) -> bool:
    rows = text.splitlines()[1:20]
    return any("," in cell and number(cell.replace(",", ".")) is not None for row in rows for cell in row.split(";"))


def _numeric(table: pa.Table, names: Sequence[str], decimal: str) -> Table:
    """Numbers and texts of a table, without header lines that are repeated in it."""
    texts: dict[str, npt.NDArray[np.object_]] = {}
    headers = np.zeros(table.num_rows, dtype=np.bool_)
    columns: dict[str, _Cells] = {}
    for place, name in enumerate(table.column_names):
        column = table.column(name)
        if pa.types.is_string(column.type):
            column = pc.utf8_trim_whitespace(column)
            same = pc.equal(column, pa.scalar(names[place].strip()))
            headers |= np.asarray(pc.fill_null(same, _NO)) & bool(names[place].strip())
        columns[name] = column
    keep = pa.array(~headers)
    series = {}
    for name, column in columns.items():
        values, present, words = _converted(column.filter(keep), decimal)
        at = np.flatnonzero(present)
        if len(at):
            series[name] = Series(values[at], at)
        if words is not None:
            texts[name] = words
    return Table(series, texts, int((~headers).sum()))


def _converted(
    column: _Cells, decimal: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.object_] | None]:
    """A column as numbers, where it has some, and as texts where most of it is not numbers."""
    valid = np.asarray(column.is_valid())
    if pa.types.is_string(column.type):
        try:
            plain = pc.replace_substring(column, ",", ".") if decimal == "," else column
            plain = pc.if_else(pc.equal(plain, pa.scalar("")), pa.scalar(None, pa.string()), plain)
            valid = np.asarray(plain.is_valid())
            values = plain.cast(pa.float64())
        except pa.ArrowInvalid:
            found = [number(text) for text in column.to_pylist()]
            present = np.array([value is not None for value in found], dtype=np.bool_)
            numbers = np.array([np.nan if value is None else value for value in found])
            words = np.array(column.to_pylist(), dtype=object) if present.sum() < valid.sum() else None
            return numbers, present, words
    elif pa.types.is_boolean(column.type) or pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        values = column.cast(pa.float64())
    else:  # dates, times
        return np.full(len(column), np.nan), np.zeros(len(column), dtype=np.bool_), None
    return np.asarray(pc.fill_null(values, np.nan), dtype=np.float64), valid, None


def _format_of(names: Sequence[str]) -> str:
    """What wrote the table, for people."""
    has = {name.lower() for name in names}
    if {"accumulated_submission_time", "global_step"} & has == {"accumulated_submission_time", "global_step"}:
        return "AlgoPerf CSV"
    if any(name.startswith("metrics/") for name in has) and any(name.startswith(("train/", "x/lr")) for name in has):
        return "Ultralytics CSV"
    if "eval_top1" in has:
        return "timm CSV"
    if {"epoch", "step"} <= has:
        return "Lightning CSV"
    if "epoch" in has and has & {"val_loss", "val_accuracy"} and has & {"loss", "accuracy"}:
        return "Keras CSV"
    return FORMAT


def _settings(path: Path) -> dict[str, Any]:
    """The settings that lie beside the table, where its writer leaves them."""
    for name in _SETTINGS:
        file = path.parent / name
        try:
            if file.is_file():
                with file.open("rb") as opened:
                    return flat_settings(opened.read(_LONGEST_SETTINGS).decode("utf-8", "replace"))
        except OSError:
            continue
    return {}
