"""Printed lines to rows: each line's numbers, and where in the training they belong, whoever printed it.

A line that says where it is (epoch, step, batch) has a row; a line that only says a loss ("val loss: 2.1") has one
after a line that does. Progress that is printed again and again in one place (Keras, evaluations) keeps its last.
"""

import math
import re
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence

from lossdoctor.runs.collecting import Columns
from lossdoctor.runs.printed.forms import BAR, BATCH_BAR, FINGERPRINTS, FORMS, RANK
from lossdoctor.runs.printed.names import cue_in, is_metric, split_of
from lossdoctor.runs.printed.reading import SCHEDULE, Place, Reading, reading_of
from lossdoctor.runs.printed.records import measured_in, record_of
from lossdoctor.runs.printed.scan import fields
from lossdoctor.runs.printed.tables import Card, header_of, row_of
from lossdoctor.runs.printed.templates import Template, template_of

__all__ = ["Parser"]

_NAN = math.nan
_NUMERIC = re.compile(r"(?<![a-z_])\d|nan|inf", re.IGNORECASE)  # "Tok2Vec" is a word
_GROUPS = frozenset({"epoch", "step", "batch", "total", "cue", "tail", "name", "value"})
_ASSIGNMENT = re.compile(r"\s{0,40}[A-Za-z_]\w{0,40} = ")  # source code that a program prints before it begins
_DIGITS = re.compile(r"\d++")
# "Saved the best model at epoch 3 with val_loss 0.5": said of a measurement that has its own line.
_REMARK = re.compile(
    r"\b(?:best|early.?stopping|patience|sav(?:ed|ing)|improved|restor(?:ed|ing)|resum(?:ed|ing))\b", re.IGNORECASE
)
_MOST_TEMPLATES = 8
_TRIALS = 100
_MOST_DULL = 20_000
_HEADING_WORDS = 4  # more is a sentence
_SHORT = 160  # a heading or a result is no longer
_EPOCHS = re.compile(r"s/epoch|\bepochs?/s")  # the speed of a bar over epochs
_SAMPLE = 60  # rows by which a program is recognized


class Parser:
    """Feeds on lines. Then `columns` has the values, and `epoch`, `step`, `batch`, `total`, `rank`, `kind` each row's.

    `own` says of each row whether it is known where it belongs, `formats` which programs were recognized how often.
    """

    def __init__(self, *, columns: Columns | None = None) -> None:
        """Begin without any row."""
        self.columns = columns or Columns()
        self.epoch, self.step, self.batch, self.total = array("d"), array("d"), array("d"), array("d")
        self.rank, self.kind, self.own = array("q"), bytearray(), bytearray()
        self.formats: Counter[str] = Counter()
        self._line = ""
        self._rank = -1
        self._epoch = _NAN
        self._entered = Place()
        self._placed = False
        self._block = self._evaluated = ""
        self._header: Sequence[str] = ()
        self._pending: tuple[str, Place, dict[str, float]] | None = None
        self._finished_bar = _NAN
        self._card = Card()
        self._templates: list[Template] = []
        self._templates_made = self._templates_used = 0
        self._dull: set[str] = set()

    # Kinds of rows, one byte each.
    WORDS, RECORD, BAR, TABLE, KERAS = b"wrbtk"
    # How it is known where a row belongs: its line says so, or one before it.
    SAID, INHERITED = 2, 1

    def feed(self, line: str) -> None:
        """Take the next line."""
        if (rank := RANK.match(line)) is not None:
            self._rank = int(rank["rank"] or rank["pid"])
            line = line[rank.end() :]
        if line == self._line:
            return
        self._line = line
        if self._known(line):
            return
        if "{" in line and (found := record_of(line)) is not None:
            self._record(*found)
        elif _NUMERIC.search(line) is None:
            self._heading(line)
        elif "%|" in line and (bar := BAR.match(line)) is not None:
            self._bar(bar)
        elif "/" in line and (bar := BATCH_BAR.match(line)) is not None:
            self._batch_bar(bar)
        elif not self._carded(line) and not self._form(line) and not self._table_row(line):
            self._words(line)

    def close(self) -> None:
        """Take what was held back until it was known to be the last of its place."""
        self._end_card()
        if self._pending is not None:
            kind, place, values = self._pending
            self._pending = None
            kinds = {"keras": self.KERAS, "table": self.TABLE}
            self._row(kinds.get(kind, self.WORDS), place, values)

    def _row(self, kind: int, place: Place, values: Mapping[str, float]) -> None:
        row = self.columns.row()
        said = bool(place)
        if said:
            self._placed, self._entered = True, Place()
        else:
            place = self._entered
        if not math.isnan(place.epoch):
            self._epoch = place.epoch
        self.epoch.append(self._epoch if math.isnan(place.epoch) else place.epoch)
        self.step.append(place.step)
        self.batch.append(place.batch)
        self.total.append(place.total)
        self.rank.append(self._rank)
        self.kind.append(kind)
        self.own.append(self.SAID if said else self.INHERITED if self._placed else 0)
        for name, value in values.items():
            self.columns.add(name, row, value)
        if row < _SAMPLE:
            self.formats[next((name for name, sign in FINGERPRINTS if sign.match(self._line)), "")] += 1

    def _record(self, prefix: str, record: Mapping[str, object]) -> None:
        if (found := measured_in(record, prefix)) is not None:
            self.close()
            self._row(self.RECORD, *found)

    def _heading(self, line: str) -> None:
        """A line without a number: a table's header or end, or the word "Validation:" over what follows."""
        if not line.strip(" -=+|─"):
            self._end_card()
        if (header := header_of(line)) is not None:
            self._header = header
            return
        if len(line) <= _SHORT and len(re.findall(r"[A-Za-z]+", line)) <= _HEADING_WORDS:
            self._block = cue_in(line) or self._block

    def _carded(self, line: str) -> bool:
        if self._card.begins_anew(line):
            self._end_card()
        return self._card.add(line)

    def _end_card(self) -> None:
        if (found := self._card.take()) is not None:
            self._row(self.TABLE, Place(**found[0]), found[1])

    def _table_row(self, line: str, *, held: bool = False) -> bool:
        """A row of the table whose header was printed; `held` if it may be drawn again."""
        if not self._header or (found := row_of(line, self._header)) is None:
            return False
        place, values = Place(**found[0]), found[1]
        if held:
            if self._pending is not None and self._pending[1] != place:
                self.close()
            self._hold("table", place, values)
        else:
            self.close()
            self._row(self.TABLE, place, values)
        return True

    def _bar(self, bar: re.Match[str]) -> None:
        """One state of a tqdm bar; the last of several at one place counts."""
        if self._header and self._table_row(bar["title"].strip(" :"), held=True):
            return  # Ultralytics: a table whose last row is drawn again and again
        title = reading_of(fields(bar["title"]))
        place, split = title.place, title.split or cue_in(bar["title"])
        tail = reading_of(fields(bar["tail"]), split=split)
        metrics = tail.values
        done, total = float(bar["done"]), float(bar["total"])
        if _EPOCHS.search(bar["tail"]):
            self._epoch_bar(done, metrics)
            return
        if math.isnan(place.epoch) and re.search(r"epochs?\W{0,3}$", bar["title"], re.IGNORECASE):
            place = Place(epoch=done)
        else:
            place = Place(epoch=place.epoch, batch=done, total=total)
        if not any(is_metric(name) for name in metrics):
            epoch = tail.place.epoch if math.isnan(place.epoch) else place.epoch
            if not math.isnan(epoch):  # another text was printed behind the bar: "[00:10<00:05]EPOCH: 3/40"
                self._epoch, self._placed = epoch, True
            return
        if split in {"val", "test"} and not math.isnan(place.batch):
            self._hold("progress", Place(epoch=place.epoch), metrics)
            return
        last = len(self.kind) - 1
        same = last >= 0 and self.kind[last] == self.BAR and (self.batch[last], self.total[last]) == (done, total)
        if same and (math.isnan(place.epoch) or self.epoch[last] == place.epoch):
            for name, value in metrics.items():
                self.columns.add(name, last, value)
            return
        self.close()
        self._row(self.BAR, place, metrics)

    def _epoch_bar(self, done: float, metrics: Mapping[str, float]) -> None:
        """One state of a bar over epochs: so many of them have ended, perhaps behind the bars of their batches."""
        last = len(self.kind) - 1
        batches = last >= 0 and self.kind[last] == self.BAR and self.epoch[last] == done - 1
        if any(is_metric(name) for name in metrics):
            place = Place(epoch=done - batches)
            if self._pending is not None and self._pending[1] != place:
                self.close()
            named = {n if "/" in n or split_of(n) else f"train/{n}": value for n, value in metrics.items()}
            self._hold("epochs", place, named)
        if batches:
            self.close()
        self._epoch, self._placed = done, True

    def _batch_bar(self, bar: re.Match[str]) -> None:
        """One state of a Keras bar: running means of the epoch, so that only the last state is a measurement."""
        metrics = reading_of(fields(bar["tail"])).values
        if not any(is_metric(name) for name in metrics):
            return
        done, total = float(bar["done"]), float(bar["total"])
        if not math.isnan(self._finished_bar) and total != self._finished_bar:
            # After the epoch's bar was full, another begins: model.evaluate.
            self._hold("evaluation", Place(), {f"test/{name}": value for name, value in metrics.items()})
            return
        self._hold("keras", Place(epoch=self._epoch), metrics)
        if done >= total:
            self._finished_bar = total

    def _hold(self, kind: str, place: Place, values: dict[str, float]) -> None:
        if self._pending is not None and self._pending[0] != kind:
            self.close()
        self._pending = (kind, place, values)

    def _form(self, line: str) -> bool:
        for form in FORMS:
            if form.sign not in line or (match := form.pattern.match(line)) is None:
                continue
            groups = match.groupdict()
            place = Place(*(float(groups.get(name) or "nan") for name in ("epoch", "step", "batch", "total")))
            split = form.split and (self._evaluated or form.split)
            split = split or cue_in(groups.get("cue") or "")
            found = reading_of(fields(groups.get("tail") or ""), split=split, exact=form.every_number).values
            values = {_renamed(name, form.names): value for name, value in found.items()}
            values |= {name: float(text) for name, text in groups.items() if text and name not in _GROUPS}
            if "value" in groups:
                values[form.names[groups["name"]]] = float(groups["value"])
            if values:
                self._take(place, values, split=split, known=True)
            return True
        return False

    def _words(self, line: str) -> None:
        kind = _DIGITS.sub("0", line)
        if kind in self._dull:
            return
        found = fields(line)
        said = reading_of(found)
        place, values, metrics = said.place, said.values, said.metrics
        measured = bool(metrics or SCHEDULE & values.keys())
        first = min((one.start for one in found if one.gap.role == "metric"), default=0)
        if first and _REMARK.search(line, 0, first):
            return
        if not values and not place:
            if len(self._dull) >= _MOST_DULL:
                self._dull.clear()
            self._dull.add(kind)
        elif not values:
            self._enter(place, said.split, line)
        elif place:
            if measured and self._take(place, values, split=said.split, known=bool(metrics)):
                self._remember(line, said)
        elif measured and (metrics or self._placed) and len(line) <= _SHORT * 2:
            block = self._block if not said.split else ""
            kept = {name: value for name, value in values.items() if name in metrics or name in SCHEDULE}
            named = {f"{block}/{n}" if block and not split_of(n) and "/" not in n else n: v for n, v in kept.items()}
            self.close()
            self._row(self.WORDS, place, named)

    def _remember(self, line: str, said: Reading) -> None:
        """Make lines like this one quick to read, as long as that proves useful."""
        if self._templates_made > _TRIALS + self._templates_used:
            return
        self._templates_made += 1
        if min(said.values_at.values()) >= 0 and (template := template_of(line, said.place_at, said.values_at)):
            self._templates.insert(0, template)
            del self._templates[_MOST_TEMPLATES:]

    def _known(self, line: str) -> bool:
        """Read a line by the template of an earlier one."""
        for index, template in enumerate(self._templates):
            if (found := template.read(line)) is not None:
                self._templates_used += 1
                if index:
                    self._templates.insert(0, self._templates.pop(index))
                self._take(Place(**found[0]), found[1], split="", known=True)
                return True
        return False

    def _enter(self, place: Place, split: str, line: str) -> None:
        """A line that only says where the training is: "Epoch 3/10", "[step=5/1000]", "[Epoch 0] Validation:"."""
        if len(line) > _SHORT or not place or _ASSIGNMENT.match(line):
            return
        self.close()
        self._epoch = self._epoch if math.isnan(place.epoch) else place.epoch
        self._entered = place
        split = split or cue_in(line)
        self._placed, self._block, self._finished_bar = True, split, _NAN

    def _take(self, place: Place, values: dict[str, float], *, split: str, known: bool) -> bool:
        """Make a row, unless the line is of an evaluation's batches; say whether it was made."""
        if split in {"val", "test"} and not math.isnan(place.total) and math.isnan(place.step) and known:
            self._evaluated = split
            self._hold("progress", Place(epoch=place.epoch), values)  # a batch of an evaluation: the last has the mean
            return False
        self.close()
        self._block, self._finished_bar = "", _NAN
        if not math.isnan(place.batch) and not any(name.startswith(("val/", "test/")) for name in values):
            # "train/loss" is left to what whole epochs have.
            values = {name.removeprefix("train/"): value for name, value in values.items()}
        self._row(self.WORDS, place, values)
        return True


def _renamed(name: str, names: Mapping[str, str]) -> str:
    split, slash, last = name.rpartition("/")
    return f"{split}{slash}{names[last]}" if last in names else name
