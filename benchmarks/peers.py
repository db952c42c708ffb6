"""What else people attach to a training, with the options that come closest to what a Monitor does.

Each is a context manager that takes a training and a directory and sets `training.observe`. They need
`pip install '.[benchmark]'`; one that is not installed raises ImportError and is left out with a sentence.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from torch.nn.utils import get_total_norm
from workloads import Training

from lossdoctor import Monitor

SCALARS = 20
"""Numbers logged at each step by those that only store numbers."""
EARLIER_STEPS = 2000
"""A long training is measured: a Monitor is told that so many steps came before."""


def _named(loss: object) -> dict[str, float]:
    value = float(loss)  # one read from the tensor, as people do
    return {f"value_{number}": value for number in range(SCALARS)}


@contextmanager
def monitor(training: Training, directory: Path, **options: object) -> Iterator[None]:
    """lossdoctor.Monitor with its defaults."""
    with Monitor(training.model, training.optimizer, directory / "run", **options) as watching:
        watching.load_state_dict({"step": EARLIER_STEPS})
        training.monitor = watching
        training.observe = lambda loss: watching.step(loss, samples=128)
        yield


@contextmanager
def wandb_watch(training: Training, directory: Path) -> Iterator[None]:
    """wandb offline: watch(log="all", log_freq=1) and the loss."""
    import wandb

    os.environ |= {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    run = wandb.init(mode="offline", dir=str(directory), project="benchmark")
    try:
        run.watch(training.model, log="all", log_freq=1)
        training.observe = lambda loss: run.log({"loss": loss.item()})
        yield
    finally:
        run.finish()


@contextmanager
def wandb_scalars(training: Training, directory: Path) -> Iterator[None]:
    """wandb offline: 20 numbers."""
    import wandb

    os.environ |= {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    run = wandb.init(mode="offline", dir=str(directory), project="benchmark")
    try:
        training.observe = lambda loss: run.log(_named(loss))
        yield
    finally:
        run.finish()


@contextmanager
def tensorboard_scalars(training: Training, directory: Path) -> Iterator[None]:
    """torch.utils.tensorboard: 20 scalars."""
    from torch.utils.tensorboard import SummaryWriter

    steps = itertools.count()

    def observe(loss: object) -> None:
        step = next(steps)
        for name, value in _named(loss).items():
            writer.add_scalar(name, value, step)

    with SummaryWriter(str(directory)) as writer:
        training.observe = observe
        yield


@contextmanager
def tensorboard_histograms(training: Training, directory: Path) -> Iterator[None]:
    """torch.utils.tensorboard: a histogram of each parameter and of each gradient."""
    from torch.utils.tensorboard import SummaryWriter

    steps = itertools.count()

    def observe(loss: object) -> None:
        step = next(steps)
        writer.add_scalar("loss", loss.item(), step)
        for name, parameter in training.model.named_parameters():
            writer.add_histogram(name, parameter, step)
            writer.add_histogram(f"{name}.grad", parameter.grad, step)

    with SummaryWriter(str(directory)) as writer:
        training.observe = observe
        yield


@contextmanager
def lightning_norms(training: Training, directory: Path) -> Iterator[None]:
    """lightning's grad_norm of the model and its CSVLogger, both at every step, without its Trainer."""
    from lightning.pytorch.loggers import CSVLogger
    from lightning.pytorch.utilities import grad_norm

    logger = CSVLogger(str(directory))
    steps = itertools.count()

    def observe(loss: object) -> None:
        norms = {name: float(norm) for name, norm in grad_norm(training.model, norm_type=2).items()}
        logger.log_metrics({"loss": loss.item(), **norms}, next(steps))
        if next(saved) % 100 == 99:  # the Trainer saves every 50 to 100 steps
            logger.save()

    saved = itertools.count()
    training.observe = observe
    yield
    logger.save()


@contextmanager
def trackio_scalars(training: Training, directory: Path) -> Iterator[None]:
    """trackio, on this machine only: 20 numbers."""
    os.environ["TRACKIO_DIR"] = str(directory)
    import trackio

    trackio.init(project="benchmark", embed=False)
    try:
        training.observe = lambda loss: trackio.log(_named(loss))
        yield
    finally:
        trackio.finish()


def _mlflow(training: Training, uri: str) -> Iterator[None]:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(f"benchmark {time.time()}")
    steps = itertools.count()
    with mlflow.start_run():
        training.observe = lambda loss: mlflow.log_metrics(_named(loss), step=next(steps))
        yield


@contextmanager
def mlflow_file(training: Training, directory: Path) -> Iterator[None]:
    """mlflow into files: 20 numbers."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    yield from _mlflow(training, (directory / "mlruns").as_uri())


@contextmanager
def mlflow_sqlite(training: Training, directory: Path) -> Iterator[None]:
    """mlflow into SQLite: 20 numbers."""
    yield from _mlflow(training, f"sqlite:///{directory}/mlflow.db")


@contextmanager
def naive(training: Training, directory: Path) -> Iterator[None]:
    """By hand: loss.item() and the total gradient norm's, at every step, stored nowhere."""

    def observe(loss: object) -> None:
        loss.item()
        get_total_norm([parameter.grad for parameter in training.model.parameters()]).item()

    training.observe = observe
    yield


PEERS: dict[str, Callable[[Training, Path], AbstractContextManager[None]]] = {
    "lossdoctor": monitor,
    "by hand": naive,
    "wandb.watch all": wandb_watch,
    "wandb 20 numbers": wandb_scalars,
    "TensorBoard 20 scalars": tensorboard_scalars,
    "TensorBoard histograms": tensorboard_histograms,
    "lightning norms + CSV": lightning_norms,
    "trackio 20 numbers": trackio_scalars,
    "mlflow 20 numbers, files": mlflow_file,
    "mlflow 20 numbers, SQLite": mlflow_sqlite,
}
