"""Trainings with sharded parameters in `auto`: `python -m tests.remedies.shards RANK WORLD STORE DIRECTORY KIND`.

Each rank prints, as JSON lines, what a test compares between them and with replicas that train on the same batches.
"""

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from lossdoctor import Monitor
from lossdoctor.remedies.treatments import Treatment
from tests.remedies.patients import NAN, batch, network

__all__ = ["SCENARIOS"]


def wrapped(kind: str) -> nn.Module:
    """The network of all kinds, with the same weights. Of its last layer rank 1 has nothing, or little."""
    model = network()
    if kind == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    if kind == "fsdp2":
        mesh = distributed.init_device_mesh("cpu", (2,))
        fully_shard(model[0], mesh=mesh)
        return fully_shard(model, mesh=mesh)
    return FullyShardedDataParallel(
        nn.Sequential(nn.Sequential(*model[:-1]), model[-1]),
        use_orig_params=kind == "fsdp1_original",
        device_id=torch.device("cpu"),
        auto_wrap_policy=ModuleWrapPolicy({nn.Sequential}),
    )


def whole(model: nn.Module) -> list[float]:
    """All parameters, one after the other, as one process would have them; all ranks call it."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    if isinstance(model, FullyShardedDataParallel):
        with FullyShardedDataParallel.summon_full_params(model, writeback=False):
            return [number for one in model.parameters() for number in one.detach().flatten().tolist()]
    found = [getattr(one, "full_tensor", lambda one=one: one)() for one in model.parameters()]
    return [number for one in found for number in one.detach().flatten().tolist()]


def held(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What this rank holds of parameters and their moments."""
    tensors = [one for group in optimizer.param_groups for one in group["params"]]
    tensors += [one for state in optimizer.state.values() for one in state.values() if isinstance(one, Tensor)]
    return [getattr(one, "_local_tensor", one).detach().clone() for one in tensors]


class Training:
    """A regression; a scenario is what happens to it between its steps."""

    def __init__(self, kind: str, directory: Path, rank: int, *, make=None, remediate: str = "auto") -> None:
        self.rank, self.model = rank, wrapped(kind)
        make = make or (lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9))
        self.optimizer = make(self.model.parameters())
        self.monitor = Monitor(self.model, self.optimizer, run_dir=directory, remediate=remediate)
        self.losses: list[float] = []
        self.bad_share = False
        self.is_bad = False
        self.clip: float | None = None
        self.told: Callable[[int], float] | None = None

    def step(self, number: int) -> None:
        """One step; with `bad_share` a gradient that only rank 1 holds is NaN, with `is_bad` its batch is."""
        x, y = batch(2 * number + self.rank)
        self.optimizer.zero_grad()
        loss = nn.functional.mse_loss(self.model(x * NAN if self.is_bad and self.rank else x), y)
        loss.backward()
        if self.bad_share and self.rank:
            gradients = [one.grad for group in self.optimizer.param_groups for one in group["params"]]
            mine = [getattr(one, "_local_tensor", one) for one in gradients if one is not None]
            next(one for one in mine if one.numel()).view(-1)[0] = NAN
        if self.clip is not None:
            self.monitor.clip_grad_norm_(self.clip)
        self.optimizer.step()
        self.monitor.step(loss if self.told is None else self.told(number))
        self.losses.append(loss.item())

    def validate(self) -> float:
        """A loss that is the same on all ranks. The outermost module keeps its parameters gathered after it."""
        with torch.no_grad():
            return nn.functional.mse_loss(self.model(batch(1)[0]), batch(1)[1]).item()

    @property
    def remediator(self):
        return self.monitor._remediator

    def end(self) -> dict[str, object]:
        monitor, remediator = self.monitor, self.remediator
        found: dict[str, object] = {"treats": monitor._session.doctor is not None, "steps": len(self.losses)}
        if remediator is not None:
            acts = monitor._session.interventions.values()
            found["told"] = [(one.step, one.rule, one.action, one.outcome) for one in acts]
            found["knobs"] = remediator.state_dict()["knobs"]
            found["best"] = None if monitor.best is None else monitor.best.step
        monitor.close()
        return found | {
            "weights": whole(self.model),
            "held": [one.double().sum().item() for one in held(self.optimizer)],
            "losses": self.losses[-10:],
        }


def divergence(kind: str, directory: Path, rank: int) -> dict[str, object]:
    """The learning rate is multiplied by 40 after 100 steps."""
    training = Training(kind, directory, rank)
    for step in range(1, 161):
        if step == 101:
            training.optimizer.param_groups[0]["lr"] *= 40
        training.step(step)
    return training.end() | {"last": sum(training.losses[-10:]) / 10}


def nan(kind: str, directory: Path, rank: int) -> dict[str, object]:
    """NaN in a gradient that rank 1 alone holds, then in the batch of rank 1, then in the very first step of Adam."""
    training = Training(kind, directory, rank, make=lambda parameters: torch.optim.Adam(parameters, lr=0.01))
    changed = []
    for step in range(1, 41):
        before = held(training.optimizer)
        training.bad_share, training.is_bad = step in {1, 20} and kind != "ddp", step in {28, 29}
        training.step(step)
        after = held(training.optimizer)
        if len(before) != len(after) or any(not torch.equal(*pair) for pair in zip(before, after, strict=True)):
            changed.append(step)
    return training.end() | {"changed": changed}


def healthy(kind: str, directory: Path, rank: int) -> dict[str, object]:
    """The same training with and without."""
    ends = []
    for remediate in ("off", "auto"):
        training = Training(
            kind,
            directory / remediate,
            rank,
            make=lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
            remediate=remediate,
        )
        for step in range(1, 41):
            training.step(step)
            if step % 20 == 0:
                training.monitor.evaluation(loss=training.validate())
        ends.append((held(training.optimizer), training.losses, training.end()))
    (off, off_losses, _), (auto, auto_losses, end) = ends
    same = len(off) == len(auto) and all(torch.equal(*pair) for pair in zip(off, auto, strict=True))
    return end | {"same": same and off_losses == auto_losses}


def rewind(kind: str, directory: Path, rank: int) -> dict[str, object]:
    """Back to a snapshot, right after a validation, on all ranks."""
    training = Training(kind, directory, rank, make=lambda parameters: torch.optim.AdamW(parameters, lr=0.01))
    states: dict[int, tuple[list[Tensor], list[float], float]] = {}
    for step in range(1, 40):
        training.step(step)
        if step % 16 == 0 or step == 39:
            states[step] = held(training.optimizer), whole(training.model), training.validate()
    transactions = training.remediator._transactions
    done = transactions.at_once("test", "now", Treatment((("rewind", {}),)), since=40.0)
    to = int(training.monitor._session.interventions[1].changes["weights"][1])
    pieces, weights, loss = states[to]
    now = held(training.optimizer)
    found = {
        "done": done,
        "to": to,
        "moved": states[39][1] != weights,
        "pieces": len(pieces) == len(now) and all(torch.equal(*pair) for pair in zip(pieces, now, strict=True)),
        "validated": training.validate() == loss,
        "whole": whole(training.model) == weights,
    }
    training.step(40)
    return training.end() | found


def overfitting(kind: str, directory: Path, rank: int) -> dict[str, object]:
    """Validation is best at step 100; every rank validates and reports it."""
    training = Training(kind, directory, rank)
    training.told = lambda number: 1 - 0.003 * number
    weights: dict[int, list[float]] = {}
    for step in range(1, 241):
        training.step(step)
        if step % 10 == 0:
            training.validate()
            weights[step] = whole(training.model)
            training.monitor.evaluation(loss=1.0 - 0.008 * step if step <= 100 else 0.2 + 0.006 * (step - 100))
        if training.monitor.should_stop:
            break
    return training.end() | {"restored": [step for step, one in weights.items() if one == whole(training.model)]}


def knobs(kind: str, directory: Path, rank: int) -> dict[str, object]:
    """Ours, then the loop's clipping by the whole norm; a batch with a large norm is left out; then half the rate."""
    training = Training(kind, directory, rank, make=lambda parameters: torch.optim.SGD(parameters, lr=0.05))
    (turned,) = training.remediator._knobs
    turned.max_norm = 0.5
    for step in range(1, 9):
        training.step(step)
        if step == 5:
            turned.max_norm, training.clip = None, 0.4
    training.clip = None
    turned.max_norm, turned.guard.largest = None, 1e-3
    counted: list[int] = []
    collect = turned.guard.collect

    def collected(*, wait: bool = False):
        seen = collect(wait=wait)
        counted.append(seen.large)
        return seen

    turned.guard.collect = collected
    training.step(9)
    turned.guard.largest, turned.multiplier = None, 0.5
    for step in range(10, 13):
        training.step(step)
    return training.end() | {"large": sum(counted)}


def sound(kind: str, directory: Path, rank: int) -> dict[str, object]:
    """Weights that are not finite on one rank are sound on none."""
    training = Training(kind, directory, rank)
    training.step(1)
    answers = [training.monitor.is_sound()]
    if rank:
        with torch.no_grad():
            for one in training.model.parameters():
                getattr(one, "_local_tensor", one).view(-1).fill_(NAN)
    answers.append(training.monitor.is_sound())
    return training.end() | {"answers": answers}


def fault(kind: str, directory: Path, rank: int) -> dict[str, object]:
    """The remedies of rank 1 break while both have a lower learning rate in force."""
    training = Training(kind, directory, rank)
    (turned,), session = training.remediator._knobs, training.monitor._session
    untreated: list[int] = []
    untouched: list[int] = []
    for step in range(1, 61):
        if step == 20:
            turned.multiplier = 0.5
        if step == 30 and rank:
            session.doctor.settle = None
        training.step(step)
        if session.doctor is None:
            untreated.append(step)
        if step > 20 and turned._faulty:
            untouched.append(step)
    found = {"let go": [untreated[0], untouched[0]]}
    return training.end() | found


SCENARIOS: dict[str, dict[str, Callable[[str, Path, int], dict[str, object]]]] = {
    kind: {one.__name__: one for one in scenarios}
    for kind, scenarios in {
        "ddp": (divergence, knobs),
        "fsdp1": (nan, rewind, knobs, sound),
        "fsdp1_original": (divergence, nan, healthy, rewind, overfitting),
        "fsdp2": (divergence, nan, healthy, rewind, overfitting, knobs, sound, fault),
    }.items()
}


def main(rank: str, world: str, store: str, directory: str, kind: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=int(world))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both generations warn of what torch itself will remove
        for name, scenario in SCENARIOS[kind].items():
            print(json.dumps(scenario(kind, Path(directory) / name, int(rank))))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
