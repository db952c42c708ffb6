"""Joins the parts of a Monitor: what records, what judges, what treats."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any, Literal, TypeAlias

from torch import nn
from torch.optim import Optimizer

from lossdoctor.capture.environment import describe
from lossdoctor.capture.faults import Faults
from lossdoctor.capture.live import LiveJudge
from lossdoctor.capture.mirror import TensorBoardMirror
from lossdoctor.capture.names import layers_of
from lossdoctor.capture.ranks import directory_of, why_not_treated
from lossdoctor.capture.recorder import Recorder
from lossdoctor.capture.scaler import ScalerWatch
from lossdoctor.capture.session import Session
from lossdoctor.capture.shards import Shards
from lossdoctor.capture.whole import WholeNorms
from lossdoctor.configuration import Configuration, find_configuration
from lossdoctor.errors import UsageError
from lossdoctor.findings import Finding
from lossdoctor.notifying import Notices, Webhook, webhook_from
from lossdoctor.remedies import Company, Ensemble, Loop, Policy, Rehearsal, Remediator, TrainStep
from lossdoctor.reports.text import verdict_line
from lossdoctor.rulebook import Rulebook
from lossdoctor.runs.events import Intervention
from lossdoctor.runs.writer import RunWriter

__all__ = ["Options", "Remediate", "assemble"]

Remediate: TypeAlias = Literal["off", "suggest", "auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a Monitor is asked for beside model, optimizers and place; see Monitor."""

    scheduler: Any
    scaler: Any
    total_steps: int | None
    remediate: Remediate
    policy: Policy | None
    config: Mapping[str, Any] | None
    also: Sequence[Any]
    grad_norm_every: int | None
    tensorboard: bool
    on_finding: Callable[[Finding], object] | None = None
    train_step: TrainStep | None = None


def assemble(
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    run_dir: str | PathLike[str] | None,
    options: Options,
    *,
    faults: Faults,
) -> tuple[Session, Remediator | None] | None:
    """The session of a new recording, and who treats it in `auto`; None where this process records nothing.

    Raises:
        RunDirectoryError: run_dir cannot be written, or another Monitor is recording there.
        ConfigurationError, RuleError: lossdoctor.toml or a rule file it names is wrong.
    """
    layers = layers_of(model)
    if not layers:
        faults.mention("model", f"{type(model).__name__} has no parameters; only what the loop reports is recorded")
    watch = ScalerWatch(options.scaler)
    info = describe(
        model,
        optimizers,
        layers,
        scheduler=options.scheduler,
        uses_scaler=watch.is_enabled,
        total_steps=options.total_steps,
        config=options.config,
    )
    directory = directory_of(run_dir, info.rank, faults)
    if directory is None:
        return None
    remediate, policy = options.remediate, options.policy or Policy()
    shards = Shards.of(model)
    info.sharded = shards is not None
    rulebook, settings = None, Configuration()
    if remediate != "off":
        settings = find_configuration()
        rulebook = Rulebook.load(settings.rules, settings.thresholds, settings.ignore)
        policy = options.policy or Policy(**settings.remedies)
    company: Company | None = None
    if remediate == "auto" and info.world_size > 1 and not policy.dry_run:
        why_not = why_not_treated(shards, options.scaler)
        if not why_not:
            company, why_not = Company.gather(
                model,
                policy,
                shares=(shards or Shards({}, info.world_size)).shares,
                is_sharded=shards is not None,
                total_steps=info.total_steps,
            )
        if why_not:
            faults.mention("remedies", f'remediate="auto" works as "suggest" here: {why_not}')
            remediate = "suggest"
    info.remediate = remediate
    writer = RunWriter(directory, info, rank=info.rank, mirror=TensorBoardMirror() if options.tensorboard else None)

    notices = _notices(str(writer.directory), options, settings, faults) if not info.rank else None

    def record(intervention: Intervention) -> None:
        session.intervened(intervention)  # made further down

    @contextmanager
    def aside() -> Iterator[None]:
        if remediator is not None:
            with faults.paused(), remediator.aside():
                yield
            recorder.watch.restart()

    remediator: Remediator | None = None
    if remediate == "auto" and not policy.dry_run:
        # Before the recorder: its hooks are to see the learning rate that the remedies put in force.
        remediator = Remediator(
            model=model,
            optimizers=optimizers,
            scaler=options.scaler if watch.is_enabled else None,
            also=options.also,
            total_steps=info.total_steps,
            policy=policy,
            record=record,
            company=company,
            directory=writer.directory,
            loop=None
            if options.train_step is None
            else Loop(options.train_step, aside, [one for one in [options.scheduler] if one is not None]),
        )
    recorder = Recorder(
        optimizers,
        layers=layers,
        scaler=options.scaler,
        faults=faults,
        grad_norm_every=options.grad_norm_every or (1 if remediator is not None else None),
        reads_at_once=remediate == "auto",
        shards=shards,
        model=model,
        scheduler=options.scheduler,
    )
    if remediator is not None:
        remediator.block_last()  # the recorder is to see the gradients of a step that is skipped

    def make_judge(book: Rulebook) -> LiveJudge:
        whole = WholeNorms(company.agreement.to_first) if company is not None and company.is_sharded else None
        return LiveJudge(book, info, event=writer.event, listener=notices, whole=whole)

    session = Session(recorder, writer, faults, make_judge=None if rulebook is None else partial(make_judge, rulebook))
    session.doctor = remediator
    if remediator is not None and company is not None:
        session.doctor = Ensemble(remediator, company)
    if remediate == "auto" and policy.dry_run:
        session.doctor = Rehearsal(len(optimizers), record=record, policy=policy)
    return session, remediator


def _notices(run: str, options: Options, settings: Configuration, faults: Faults) -> Notices:
    """Who is told of findings. A webhook that cannot be is mentioned, and left out."""
    webhook: Webhook | None = None
    try:
        if address := webhook_from(settings.webhook):
            webhook = Webhook(address, mention=faults.mention)
    except UsageError as error:
        faults.mention("webhook", str(error))
    return Notices(
        run,
        mention=faults.mention,
        verdict_line=partial(verdict_line, named=True),
        on_finding=options.on_finding,
        webhook=webhook,
    )
