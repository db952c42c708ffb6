"""Trainings by several processes: `python -m tests.loops.ranks RANK WORLD STORE DIRECTORY`, each in its directory.

The batches of all ranks together are the batches of the single process that the tests compare with.
"""

import sys
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import mse_loss

from lossdoctor import Monitor

__all__ = ["ROWS", "STEPS", "batch", "make_model"]

STEPS = 12
ROWS = 8
MAX_NORM = 0.3


def make_model() -> nn.Module:
    """Odd sizes: shards are not equal, and some are empty."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Tanh(), nn.Linear(3, 1))


def batch(step: int) -> tuple[Tensor, Tensor]:
    """The batch of all ranks: inputs (2 * ROWS, 5), targets (2 * ROWS, 1)."""
    draw = torch.Generator().manual_seed(100 + step)
    inputs = torch.randn(2 * ROWS, 5, generator=draw)
    return inputs, inputs.sum(1, keepdim=True).sin() * 2


def mine(step: int, rank: int) -> tuple[Tensor, Tensor]:
    """One rank's part."""
    inputs, targets = batch(step)
    return inputs[rank * ROWS : (rank + 1) * ROWS], targets[rank * ROWS : (rank + 1) * ROWS]


def train(model, directory, rank, *, clip=None, accumulation=1, steps=STEPS, before=lambda step: None, reduce=None):
    """The loop people write: SGD with momentum, maybe clipped, maybe accumulated without synchronization."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with Monitor(model, optimizer, directory, remediate="off", grad_norm_every=1) as monitor:
        for step in range(steps):
            before(step)
            inputs, targets = mine(step, rank)
            for at, (x, y) in enumerate(zip(inputs.chunk(accumulation), targets.chunk(accumulation), strict=True)):
                last = at == accumulation - 1
                with nullcontext() if last else model.no_sync():
                    loss = mse_loss(model(x), y)
                    (loss / accumulation).backward()
                if last:
                    if reduce:
                        reduce()
                    if clip:
                        clip(MAX_NORM)
                    optimizer.step()
                    optimizer.zero_grad()
                monitor.step(loss, samples=len(x))
    return monitor


def replicated(directory: Path, rank: int) -> None:
    """DistributedDataParallel: plain and clipped, accumulated, with a slow rank, with a rank out of step."""
    ddp = nn.parallel.DistributedDataParallel
    model = ddp(make_model())
    train(model, directory / "ddp", rank, clip=lambda norm: nn.utils.clip_grad_norm_(model.parameters(), norm))
    train(ddp(make_model()), directory / "ddp_accumulated", rank, accumulation=2)
    train(ddp(make_model()), directory / "slow", rank, before=lambda _: time.sleep(0.03 if rank else 0))
    apart = ddp(make_model())

    @torch.no_grad()
    def nudge(step: int) -> None:
        if step == 5 and rank:
            apart.module[0].weight[0, 0] += 0.01

    train(apart, directory / "apart", rank, before=nudge)
    train(ddp(make_model()), None, rank, steps=2)


def sharded(directory: Path, rank: int) -> None:
    """FSDP in both generations, and one layer of several sharded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both generations warn of what torch itself will remove
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
        from torch.distributed.fsdp.wrap import ModuleWrapPolicy

        mesh = init_device_mesh("cpu", (2,))
        for name, originals in (("fsdp1", False), ("fsdp1_original", True)):
            model = FullyShardedDataParallel(
                make_model(),
                use_orig_params=originals,
                device_id=torch.device("cpu"),
                auto_wrap_policy=ModuleWrapPolicy({nn.Linear}),
            )
            train(model, directory / name, rank, clip=model.clip_grad_norm_)
        model = make_model()
        for layer in model:
            if isinstance(layer, nn.Linear):
                fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        train(model, directory / "fsdp2", rank, clip=lambda norm: nn.utils.clip_grad_norm_(model.parameters(), norm))
        partly = make_model()
        fully_shard(partly[2], mesh=mesh)
        whole = [*partly[0].parameters(), *partly[4].parameters()]

        def reduce() -> None:
            for parameter in whole:
                distributed.all_reduce(parameter.grad, op=distributed.ReduceOp.SUM)
                parameter.grad /= 2

        train(partly, directory / "partly", rank, reduce=reduce)


def main(rank: str, world: str, store: str, directory: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=int(world))
    replicated(Path(directory), int(rank))
    sharded(Path(directory), int(rank))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
