"""Monitor: what a training loop talks to."""

import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, get_args

from torch import Tensor, nn
from torch.optim import Optimizer

from lossdoctor.assembly import Options, Remediate, assemble
from lossdoctor.capture.arguments import check_arguments, stepping_optimizers
from lossdoctor.capture.data_watch import Split
from lossdoctor.capture.faults import Faults
from lossdoctor.capture.scaler import ScalerWatch
from lossdoctor.capture.session import Session
from lossdoctor.capture.shards import clip_grad_norm_
from lossdoctor.errors import LossDoctorError, UsageError
from lossdoctor.findings import Diagnosis, Finding
from lossdoctor.remedies import Best, Policy, Remediator, TrainStep, weights_are_finite
from lossdoctor.runs.info import Status

__all__ = ["Monitor", "Remediate", "live_monitors"]

_T = TypeVar("_T")
_LIVE: "weakref.WeakSet[Monitor]" = weakref.WeakSet()


def live_monitors() -> list["Monitor"]:
    """The Monitors of this process that are not closed."""
    return [monitor for monitor in _LIVE if monitor.is_recording]


class Monitor:
    """Records a training into a run directory, judges it while it runs, and in `auto` treats it.

        with Monitor(model, optimizer, run_dir="runs/baseline") as monitor:
            for epoch in range(epochs):
                for x, y in monitor.batches(train_loader):
                    loss = criterion(model(x), y)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    monitor.step(loss, samples=len(x))
                monitor.evaluation(loss=validate(model))

    In `off` and `suggest` the training is bit-identical to one without a Monitor. A fault of the Monitor's own is
    logged once as a warning and never reaches the loop. With LOSSDOCTOR=off in the environment nothing is recorded.

    Args:
        model: The model; its modules that own parameters are the layers of the report.
        optimizer: The optimizer, or all of them where there are several.
        run_dir: Where to record; default LOSSDOCTOR_RUN_DIR, else a new `runs/<date>-<time>`. A directory that holds a
            run gets a new attempt. In a distributed training every rank makes a Monitor with the same run_dir; a rank
            other than 0 that has none records nothing.
        scheduler: The learning-rate scheduler, for the record only.
        scaler: The GradScaler, where there is one: gradients are recorded unscaled, skipped steps as such.
        total_steps: Optimizer steps the training is planned for; default what the scheduler states, if it does.
        remediate: "off" records; "suggest" (default) also judges and logs findings with what to do about them; "auto"
            does what is safe.
        policy: What `auto` may do, which weights are the best, whether it only says what it would do; see Policy.
            Default: the `[remedies]` table of lossdoctor.toml.
        config: What the run's owner wants to find in run.json.
        also: Further objects with a state_dict that a rewind has to take back, such as an EMA of the weights.
        train_step: In `auto`: `train_step(number)` takes one training step, on the same batch for the same number, and
            returns its loss. Where a finding has several treatments, they are tried by it side by side; see Policy.
        grad_norm_every: Record gradient norms at every k-th step; default: chosen after 50 steps so that their cost
            stays within 0.4 % of a step, and 1 in `auto`.
        tensorboard: Also write the main signals and the findings as event files, into `tensorboard/` of the run.
        on_finding: Called with each new finding, between two steps; an exception it raises is logged once.

    Raises:
        UsageError: An argument is of the wrong kind.
        RunDirectoryError: run_dir cannot be written, or another Monitor is recording there.
        ConfigurationError, RuleError: lossdoctor.toml or a rule file it names is wrong.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer],
        run_dir: str | PathLike[str] | None = None,
        *,
        scheduler: Any = None,
        scaler: Any = None,
        total_steps: int | None = None,
        remediate: Remediate = "suggest",
        policy: Policy | None = None,
        config: Mapping[str, Any] | None = None,
        also: Sequence[Any] = (),
        train_step: TrainStep | None = None,
        grad_norm_every: int | None = None,
        tensorboard: bool = False,
        on_finding: Callable[[Finding], object] | None = None,
    ) -> None:
        check_arguments(model, remediate, grad_norm_every, modes=get_args(Remediate))
        self.model, self.optimizers = model, stepping_optimizers(optimizer)
        self.scheduler, self.scaler, self.also = scheduler, scaler, also
        self._session: Session | None = None
        self._remediator: Remediator | None = None
        self._faults = Faults()
        if os.environ.get("LOSSDOCTOR", "").lower() == "off":
            return
        made = assemble(
            model,
            self.optimizers,
            run_dir,
            Options(
                scheduler=scheduler,
                scaler=scaler,
                total_steps=total_steps,
                remediate=remediate,
                policy=policy,
                config=config,
                also=also,
                train_step=train_step,
                grad_norm_every=grad_norm_every,
                tensorboard=tensorboard,
                on_finding=on_finding,
            ),
            faults=self._faults,
        )
        if made is None:
            return
        session, self._remediator = made
        self._session = session
        self._step = self._faults.guard("monitor.step", session.step)
        self._evaluation = self._faults.guard("monitor.evaluation", session.evaluated)
        self._finalizer = weakref.finalize(self, _close_at_exit, session)
        _LIVE.add(self)

    # -- what the loop reports

    def step(
        self,
        loss: Tensor | float | Mapping[str, Tensor | float] | None = None,
        *,
        samples: int | None = None,
        tokens: int | None = None,
        metrics: Mapping[str, Tensor | float] | None = None,
    ) -> None:
        """Report one optimizer step, or one micro-batch where gradients are accumulated.

        Calls without an optimizer step in between are merged: losses and metrics averaged, samples and tokens summed.

        Args:
            loss: The training loss as backward got it (a scalar tensor or a number), or several by name.
            samples: Samples of the batch; default what `batches` saw.
            tokens: Tokens of the batch.
            metrics: More numbers of the batch; {"accuracy": a} is recorded as train_accuracy.
        """
        if self._session is not None:
            self._step(loss, samples, tokens, metrics)

    def evaluation(self, loss: Tensor | float | None = None, **metrics: Tensor | float) -> None:
        """Report one validation: `evaluation(loss=val_loss, accuracy=a)` is recorded as val_loss and val_accuracy."""
        if self._session is not None:
            self._evaluation(loss, metrics)

    def batches(self, loader: Iterable[_T], *, split: Split = "train") -> Iterable[_T]:
        """The loader of a split, "train" or "val": its data are looked at, training's waits timed and epochs marked."""
        return loader if self._session is None else self._session.batches(loader, split)

    def clip_grad_norm_(self, max_norm: float, norm_type: float = 2.0) -> Tensor:
        """Clip the gradients of all parameters as `torch.nn.utils.clip_grad_norm_` does, and return their norm.

        Of a model wrapped by FullyShardedDataParallel as its own `clip_grad_norm_` does.

        With a GradScaler they are unscaled first, if they were not yet. Works with LOSSDOCTOR=off too.
        """
        watch = ScalerWatch(self.scaler)
        if watch.is_enabled:
            for optimizer in self.optimizers:
                parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
                if watch.is_ready(optimizer) and any(parameter.grad is not None for parameter in parameters):
                    self.scaler.unscale_(optimizer)
        bound = max_norm if self._remediator is None else self._remediator.loop_bound(max_norm)
        return clip_grad_norm_(self.model, bound, norm_type)

    # -- what the loop may ask

    @property
    def run_dir(self) -> Path | None:
        """Where rows are written: the attempt's directory; None with LOSSDOCTOR=off."""
        return None if self._session is None else self._session.writer.directory

    @property
    def should_stop(self) -> bool:
        """Whether the loop should end. Always False except in `auto`."""
        return self._remediator is not None and self._remediator.should_stop

    @property
    def best(self) -> Best | None:
        """Step and value of the lowest validation loss so far."""
        if self._remediator is not None:
            return self._remediator.best
        if self._session is None or self._session.best is None:
            return None
        return Best(*self._session.best)

    def is_sound(self) -> bool:
        """Whether the present weights are worth saving: finite, and in `auto` with no error going on.

        A guard for one's own checkpoints, so that a bad one never replaces a good one. Waits for the device. Where
        parameters are sharded, in `auto`, the answer is for all shards: ask on every rank. Else it is for one's own.
        """
        if self._remediator is not None:
            return self._remediator.is_sound()
        return weights_are_finite(self.model)

    def diagnosis(self) -> Diagnosis:
        """What is to be said about the run so far. Waits for numbers that are still on a device.

        Raises:
            UsageError: The Monitor was made with remediate="off", or LOSSDOCTOR=off is set.
        """
        found = None if self._session is None else self._session.diagnosis()
        if found is None:
            raise UsageError('nothing was judged: make the Monitor with remediate="suggest", or use lossdoctor.analyze')
        return found

    def __repr__(self) -> str:
        if self._session is None:
            return "<Monitor: off>"
        state = "recording" if self.is_recording else "closed"
        return f"<Monitor of '{self.run_dir}': {state}, step {self._session.recorder.step}>"

    def _repr_html_(self) -> str | None:
        if self._session is None or self.run_dir is None:
            return None
        from lossdoctor.reports.notebook import recording_html  # noqa: PLC0415  only a notebook asks

        try:
            return recording_html(self.run_dir, self._session.diagnosis())
        except LossDoctorError:
            return None  # nothing is written yet: the plain line has to do

    @property
    def is_recording(self) -> bool:
        """Whether steps are recorded: from the beginning until `close`, and not with LOSSDOCTOR=off."""
        return self._session is not None and not self._session.is_closed

    @contextmanager
    def aside(self) -> Iterator[None]:
        """See nothing for a while: what is tried out is no part of the training."""
        with ExitStack() as stack:
            stack.enter_context(self._faults.paused())
            if self._remediator is not None:
                stack.enter_context(self._remediator.aside())
            yield
        if self._session is not None:
            self._session.recorder.watch.restart()

    # -- its life

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint should hold so that a resumed training goes on with this run."""
        state: dict[str, Any] = {"step": 0 if self._session is None else self._session.recorder.step}
        if self._remediator is not None:
            state["remedies"] = self._remediator.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the step of `state`: rows recorded beyond it are superseded."""
        if self._session is not None:
            self._faults.guard("resuming", self._session.resume)(int(state["step"]))
        standing = state.get("remedies")
        if self._remediator is not None and standing is not None:
            self._remediator.load_state_dict(standing)
        elif standing is not None:
            self._faults.mention(
                "remedies", 'the checkpoint holds standing remedies that are not in force without remediate="auto"'
            )

    def close(self) -> None:
        """Write what is left and take out every hook. Safe to call twice; done at exit in any case."""
        self._end("finished")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self._end("finished")
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            self._end("stopped", ("stop", type(error).__name__))
        else:
            self._end("crashed", ("exception", f"{type(error).__name__}: {error}"))

    def _end(self, status: Status, mark: tuple[str, str] | None = None) -> None:
        if self._session is not None:
            self._finalizer.detach()
            self._session.close(status, mark=mark)


def _close_at_exit(session: Session) -> None:
    """End a session nobody closed: the Monitor went out of scope, or the interpreter ends."""
    error = getattr(sys, "last_value", None) if not hasattr(sys, "ps1") else None
    if error is None:
        session.close("finished")
    elif isinstance(error, KeyboardInterrupt):
        session.close("stopped", mark=("stop", "KeyboardInterrupt"))
    else:
        session.close("crashed", mark=("exception", f"{type(error).__name__}: {error}"))
