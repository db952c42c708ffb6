"""Small recordings with a configuration, for comparisons."""

import numpy as np

from lossdoctor.runs import Block, Column, RunInfo, RunWriter, Table
from lossdoctor.runs.info import GroupInfo, OptimizerInfo

STEPS = 600


def recorded(directory, *, seed=0, shift=0.0, shift_from=0, noise=0.02, floor=0.3, optimizer="AdamW", **config):
    """A loss that falls to `floor`, with its own noise for each seed; `shift` is added from a step on."""
    rng = np.random.default_rng(seed)
    step = np.arange(1.0, STEPS + 1)
    loss = floor + 2 * np.exp(-step / 60) + noise * rng.standard_normal(STEPS) + np.where(step > shift_from, shift, 0.0)
    evaluated = step[29::30]
    val = floor + 0.05 + 2 * np.exp(-evaluated / 60) + 0.005 * rng.standard_normal(len(evaluated))
    val += np.where(evaluated > shift_from, shift, 0.0)
    lr = config.get("lr", 1e-3)
    info = RunInfo(
        config={"seed": seed, **config},
        optimizers=[OptimizerInfo(type=optimizer, groups=[GroupInfo(parameters=9, tensors=1, learning_rate=lr)])],
    )
    columns = {
        "step": Column(step),
        "time": Column(1.7e9 + step * 0.01),
        "train_loss": Column(loss.astype(np.float32)),
        "learning_rate": Column(np.full(STEPS, lr, dtype=np.float32)),
        "samples": Column(np.full(STEPS, 32, dtype=np.float32)),
        "samples_per_second": Column(np.full(STEPS, 3200, dtype=np.float32)),
    }
    evaluations = {
        "step": Column(evaluated),
        "val_loss": Column(val.astype(np.float32)),
        "val_f1": Column((1 - val).astype(np.float32)),
    }
    writer = RunWriter(directory, info)
    writer.write(Block(Table(columns), Table(evaluations)))
    writer.close()
    return directory
