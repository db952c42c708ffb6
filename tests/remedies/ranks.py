"""Trainings by several processes in `auto`: `python -m tests.remedies.ranks RANK WORLD STORE DIRECTORY`.

Each rank prints, as JSON lines, what a test compares between them.
"""

import json
import sys
from pathlib import Path

import torch
from torch import distributed, nn

from lossdoctor import Monitor, Policy
from tests.remedies.patients import NAN, batch, network

__all__ = ["SCENARIOS"]

SCENARIOS = ("divergence", "nan", "overfitting", "veto", "fault")


def train(directory: Path, rank: int, scenario: str) -> dict[str, object]:
    """240 steps of a regression; what goes wrong, goes wrong at step 150 or on one rank only."""
    model = nn.parallel.DistributedDataParallel(network(norm=True))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    policy = Policy(before_act=lambda proposal: rank > 0) if scenario == "veto" else None
    losses = []
    with Monitor(model, optimizer, run_dir=directory / scenario, remediate="auto", policy=policy) as monitor:
        for step in range(1, 241):
            if step == 100 and scenario == "fault" and rank == 1:
                monitor._session.doctor.settle = None  # the remedies of one rank break
            if step == 150 and scenario in {"divergence", "veto"}:
                optimizer.param_groups[0]["lr"] *= 40
            x, y = batch(2 * step + rank)
            if scenario == "nan" and rank == 1 and step in {40, 41}:
                x = x * NAN
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            monitor.step(1 - 0.003 * step if scenario == "overfitting" else loss)
            losses.append(loss.item())
            if scenario == "overfitting" and rank == 0 and step % 10 == 0:
                monitor.evaluation(loss=1.0 - 0.008 * step if step <= 100 else 0.2 + 0.006 * (step - 100))
            if monitor.should_stop:
                break
        told = [(act.step, act.rule, act.action, act.outcome) for act in monitor.diagnosis().interventions]
        treats = monitor._session.doctor is not None
        standing = monitor.state_dict()["remedies"]["knobs"]
    weights = [tensor.double().sum().item() for tensor in model.parameters()]
    return {
        "rank": rank,
        "scenario": scenario,
        "weights": weights,
        "told": told,
        "treats": treats,
        "knobs": standing,
        "steps": step,
        "best": None if monitor.best is None else monitor.best.step,
        "finite": all(torch.isfinite(tensor).all().item() for tensor in (*model.parameters(), *model.buffers())),
        "last": sum(losses[-10:]) / 10,
    }


def main(rank: str, world: str, store: str, directory: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=int(world))
    for scenario in SCENARIOS:
        print(json.dumps(train(Path(directory), int(rank), scenario)))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
