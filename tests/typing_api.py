"""The public API as a user's type checker sees it. Checked by mypy (`make check`), never run.

Each assignment states a type that people may rely on.
"""

from pathlib import Path

import torch

import lossdoctor
from lossdoctor import Monitor
from lossdoctor.findings import Diagnosis, Finding


def train(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, loader: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    """The loop of README.md."""
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    scaler = torch.amp.GradScaler("cpu")
    with Monitor(
        model,
        optimizer,
        run_dir=Path("runs/typed"),
        scheduler=scheduler,
        scaler=scaler,
        total_steps=100,
        remediate="suggest",
        config={"batch_size": 64},
        also=[model],
    ) as monitor:
        for x, y in monitor.batches(loader):
            loss = torch.nn.functional.mse_loss(model(x), y)
            loss.backward()
            norm: torch.Tensor = monitor.clip_grad_norm_(1.0)
            optimizer.step()
            monitor.step(loss, samples=len(x), tokens=3, metrics={"accuracy": float(norm)})
        monitor.evaluation(loss=0.5, accuracy=0.5)
        stop: bool = monitor.should_stop
        diagnosis: Diagnosis = monitor.diagnosis()
        verdict: str = diagnosis.verdict
        monitor.load_state_dict(monitor.state_dict())
        print(stop, verdict, monitor.best)


def train_two(generator: torch.optim.Optimizer, discriminator: torch.optim.Optimizer, model: torch.nn.Module) -> None:
    """Several optimizers, by list; several losses, by name; no `with`."""
    monitor = Monitor(model, [generator, discriminator])
    monitor.step({"g": 1.0, "d": torch.tensor(2.0)})
    monitor.close()


def read(path: str | Path) -> None:
    """A diagnosis of what was recorded."""
    diagnoses: list[Diagnosis] = lossdoctor.analyze(path)
    for diagnosis in diagnoses:
        finding: Finding
        for finding in diagnosis.findings:
            since: float = finding.since
            advice: list[str] = [prescription.advice for prescription in finding.prescriptions]
            print(finding.rule, since, advice)
