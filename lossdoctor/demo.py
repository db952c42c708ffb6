"""The demo: a small real network fails to train, the doctor says why, and cures it.

A convolutional network learns scikit-learn's handwritten digits, which ship with that package. Its schedule has a typo:
on the way, the learning rate is multiplied by 10 where it should be multiplied by 0.1. The network is trained three
times from the same seed: as it is, with the doctor's help, and, to compare with, without the typo.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import MultiStepLR

from lossdoctor.analysis import judge
from lossdoctor.monitor import Monitor, Remediate
from lossdoctor.reports import text
from lossdoctor.reports.page import Page
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs.events import Intervention

__all__ = ["run_demo"]

_EPOCHS = 24
_BATCH_SIZE = 64
_LEARNING_RATE = 0.03
_CHANGE_AFTER = 10
"""Epochs after which the learning rate changes."""
_MEANT, _TYPED = 0.1, 10.0
"""The factor it is multiplied by then."""
_HELD_OUT = 449


@dataclass(frozen=True, slots=True)
class _Digits:
    """Images (rows, 1, 8, 8), standardized, and labels (rows,)."""

    images: Tensor
    labels: Tensor
    held_out_images: Tensor
    held_out_labels: Tensor


@dataclass(frozen=True, slots=True)
class _Result:
    """How a training ended."""

    val_loss: float
    val_accuracy: float
    interventions: Sequence[Intervention] = ()


def run_demo(console: Console, *, seed: int = 0, run_dir: Path | None = None) -> None:
    """Train, diagnose, cure, and print all of it on `console`. Takes some seconds and needs no network.

    The recordings are left in `run_dir`; without one they are made in a temporary directory and removed. The same seed
    gives the same numbers on the same machine.
    """
    page = Page(width=console.width, unicode=console.encoding.lower().startswith("utf"))
    digits = _load()
    with tempfile.TemporaryDirectory(prefix="lossdoctor-") as scratch, _one_thread():
        place = Path(scratch) if run_dir is None else run_dir
        _say(
            console,
            page,
            f"A small convolutional network learns to read scikit-learn's {len(digits.labels) + _HELD_OUT:,} "
            f"handwritten digits. Its schedule has a typo: after epoch {_CHANGE_AFTER} of {_EPOCHS} the learning rate "
            f"is multiplied by {_TYPED:g}, where {_MEANT:g} was meant.",
        )
        failed = _train(console, digits, "as it is", place / "as_it_is", remediate="suggest", factor=_TYPED, seed=seed)
        _report(console, page, place / "as_it_is", name="as it is")
        _say(console, page, 'The same once more, but with remediate="auto": the doctor may act.')
        cured = _train(console, digits, "treated", place / "treated", remediate="auto", factor=_TYPED, seed=seed)
        sound = _train(console, digits, "no typo", place / "no_typo", remediate="off", factor=_MEANT, seed=seed)
        console.print()
        console.print(_acts(cured.interventions))
        console.print()
        console.print(_comparison({"as it is": failed, "treated": cured, "without the typo": sound}))
        if run_dir is not None:
            _say(console, page, f"The recordings are in {run_dir}: lossdoctor analyze {run_dir}")


def _train(
    console: Console, digits: _Digits, title: str, directory: Path, *, remediate: Remediate, factor: float, seed: int
) -> _Result:
    """One training, watched by a Monitor, under a progress bar."""
    torch.manual_seed(seed)
    shuffle = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )
    steps = -(-len(digits.labels) // _BATCH_SIZE)
    optimizer = torch.optim.SGD(model.parameters(), lr=_LEARNING_RATE, momentum=0.9)
    scheduler = MultiStepLR(optimizer, [_CHANGE_AFTER], gamma=factor)
    val_loss = val_accuracy = float("nan")
    with (
        _progress(console) as progress,
        _findings_above(progress),
        Monitor(
            model,
            optimizer,
            run_dir=directory,
            scheduler=scheduler,
            total_steps=_EPOCHS * steps,
            remediate=remediate,
            config={"batch_size": _BATCH_SIZE, "epochs": _EPOCHS, "seed": seed},
        ) as monitor,
    ):
        bar = progress.add_task(title, total=_EPOCHS, val_loss=val_loss)
        for _ in range(_EPOCHS):
            batches = torch.randperm(len(digits.labels), generator=shuffle).split(_BATCH_SIZE)
            for rows in monitor.batches(batches):
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(digits.images[rows]), digits.labels[rows])
                loss.backward()
                optimizer.step()
                monitor.step(loss, samples=len(rows))
            scheduler.step()
            val_loss, val_accuracy = _validate(model, digits)
            monitor.evaluation(loss=val_loss, accuracy=val_accuracy)
            progress.update(bar, advance=1, val_loss=val_loss)
            if monitor.should_stop:
                break
        interventions = monitor.diagnosis().interventions if remediate == "auto" else ()
    return _Result(val_loss, val_accuracy, interventions)


@torch.no_grad()
def _validate(model: nn.Module, digits: _Digits) -> tuple[float, float]:
    scores = model(digits.held_out_images)
    right = (scores.argmax(1) == digits.held_out_labels).float().mean()
    return functional.cross_entropy(scores, digits.held_out_labels).item(), right.item()


def _load() -> _Digits:
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1)
    images = (images - images.mean()) / images.std()
    labels = torch.tensor(data.target, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(7))
    held_out, rest = order[:_HELD_OUT], order[_HELD_OUT:]
    return _Digits(images[rest], labels[rest], images[held_out], labels[held_out])


@contextmanager
def _one_thread() -> Iterator[None]:
    """A network this small is faster on one thread, and its numbers do not depend on the machine's cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# -- what is printed


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:>10}"),
        BarColumn(),
        TextColumn("epoch {task.completed} of {task.total}, val_loss {task.fields[val_loss]:.3f}"),
        console=console,
    )


class _Above(logging.Handler):
    """Prints what the doctor logs above the progress bar, without its advice: that is in the report."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage().removeprefix("lossdoctor: ")
        if not message.startswith("help: "):
            self._console.print(Text(f"  {message}", "dim"))


@contextmanager
def _findings_above(progress: Progress) -> Iterator[None]:
    logger = logging.getLogger("lossdoctor")
    handler, propagate = _Above(progress.console), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _report(console: Console, page: Page, directory: Path, *, name: str) -> None:
    """What `lossdoctor analyze` says of the run."""
    rulebook = Rulebook.load()
    run, diagnosis = judge(directory, rulebook)
    diagnosis = msgspec.structs.replace(diagnosis, run=name)
    console.print()
    console.print(text.render(diagnosis, run, rules=rulebook.rules, page=page))


def _acts(interventions: Sequence[Intervention]) -> Table:
    table = Table("step", "finding", "what the doctor did", "outcome", title="Interventions", title_justify="left")
    for act in interventions:
        changes = [f"{knob} {old:.3g} -> {new:.3g}" for knob, (old, new) in act.changes.items()]
        table.add_row(f"{act.step:.0f}", act.rule, ", ".join([act.action, *changes]), act.outcome)
    return table


def _comparison(results: dict[str, _Result]) -> Table:
    table = Table("after the last epoch", *results, title="Side by side", title_justify="left")
    table.add_row("validation loss", *(f"{result.val_loss:.3f}" for result in results.values()))
    table.add_row("validation accuracy", *(f"{result.val_accuracy:.1%}" for result in results.values()))
    return table


def _say(console: Console, page: Page, words: str) -> None:
    console.print()
    console.print(Text("\n").join(page.hang(Text(), words)))
