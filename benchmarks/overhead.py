"""What a Monitor costs: the same training with and without one, step by step in turn, in one process and one thread.

    python benchmarks/overhead.py [--steps N] [--models mlp conv gpt] [--remediate off|suggest|auto]

`in situ` is the CPU time inside the Monitor's own entry points, a mean over all steps (sample steps included);
`paired` is the median of the differences between a monitored step and the bare step beside it. Ratios are what to
compare between machines. A long training is measured: the Monitor is told that 2,000 steps came before.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from lossdoctor import Monitor
from lossdoctor.capture.faults import Faults

BUDGETS = {"mlp": 1.05, "conv": 1.015, "gpt": 1.005}
STEPS = {"mlp": 3000, "conv": 600, "gpt": 80}
WARM_UP = {"mlp": 200, "conv": 60, "gpt": 52}
"""Steps before figures count: the cadence of the gradient norms is fixed after 50."""
EARLIER_STEPS = 2000


class Mlp(nn.Module):
    """Three hidden layers on 64 features, batches of 128: about 0.6 ms a step."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [64, 128, 128, 128, 10]
        layers: list[nn.Module] = []
        for inner, outer in itertools.pairwise(sizes):
            layers += [nn.Linear(inner, outer), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])
        self.batch = (torch.randn(128, 64), torch.randint(0, 10, (128,)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Conv(nn.Module):
    """A small residual-style network on 16 x 16 images with batch norm: about 9 ms a step."""

    def __init__(self) -> None:
        super().__init__()

        def block(inner: int, outer: int, stride: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU())

        self.layers = nn.Sequential(
            *(
                block(3, 16, 1),
                block(16, 16, 1),
                block(16, 32, 2),
                block(32, 32, 1),
                block(32, 64, 2),
                block(64, 64, 1),
            ),
            *(block(64, 64, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
        )
        self.batch = (torch.randn(16, 3, 16, 16), torch.randint(0, 10, (16,)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Gpt(nn.Module):
    """A GPT of 4.8 M parameters, 6 layers of width 256: about 0.4 s a step."""

    def __init__(self) -> None:
        super().__init__()
        width, vocabulary, context = 256, 96, 128
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        layer = nn.TransformerEncoderLayer(width, 8, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)
        self.mask = nn.Transformer.generate_square_subsequent_mask(context)
        self.batch = (torch.randint(0, vocabulary, (12, context)), torch.randint(0, vocabulary, (12, context)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.tokens(x) + self.places(torch.arange(x.shape[1]))
        return self.head(self.blocks(h, self.mask, is_causal=True)).flatten(0, 1)


MODELS: dict[str, Callable[[], nn.Module]] = {"mlp": Mlp, "conv": Conv, "gpt": Gpt}


class Training:
    """One training, bare or monitored."""

    def __init__(self, kind: str) -> None:
        torch.manual_seed(0)
        self.model = MODELS[kind]()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.x, y = self.model.batch
        self.y = y.flatten()
        self.monitor: Monitor | None = None

    def step(self) -> float:
        """One step; wall-clock seconds."""
        began = time.perf_counter()
        loss = nn.functional.cross_entropy(self.model(self.x), self.y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.monitor is not None:
            self.monitor.step(loss, samples=128)
        return time.perf_counter() - began


class InSitu:
    """Adds up the CPU time of this thread inside everything that the Monitor guards: its hooks and its step."""

    def __init__(self) -> None:
        self.seconds = 0.0
        original = Faults.guard

        def guard(faults: Faults, instrument: str, function: Callable[..., None]) -> Callable[..., None]:
            guarded = original(faults, instrument, function)
            if instrument in {"live judging", "remedies"}:  # called inside monitor.step
                return guarded

            def timed(*args: object, **kwargs: object) -> None:
                began = time.thread_time()
                guarded(*args, **kwargs)
                self.seconds += time.thread_time() - began

            return timed

        Faults.guard = guard  # type: ignore[method-assign, assignment]


def interleaved(kind: str, steps: int, remediate: str) -> Iterator[tuple[float, float]]:
    """Seconds of a bare and of a monitored step, in turns, in an order that alternates."""
    bare, watched = Training(kind), Training(kind)
    with tempfile.TemporaryDirectory() as directory:
        watched.monitor = Monitor(watched.model, watched.optimizer, Path(directory) / "run", remediate=remediate)
        with watched.monitor:
            watched.monitor.load_state_dict({"step": EARLIER_STEPS})
            for number in range(steps):
                if number % 2:
                    first = bare.step()
                    yield first, watched.step()
                else:
                    second = watched.step()
                    yield bare.step(), second
            every = watched.monitor._session.recorder.cadence.every
    print(f"  (gradient norms at every {every}. step)", end="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="steps of each model (default: as many as three minutes allow)")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--remediate", choices=["off", "suggest", "auto"], default="suggest")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    in_situ = InSitu()
    print(f"torch {torch.__version__}, 1 thread, remediate={arguments.remediate}")
    print(f"{'model':6}{'bare':>10}{'monitored':>11}{'ratio':>8}{'paired':>10}{'in situ':>10}{'ratio':>8}{'goal':>7}")
    for kind in arguments.models:
        steps = max(arguments.steps or STEPS[kind], 2 * WARM_UP[kind] if arguments.steps else 0)
        pairs: list[tuple[float, float]] = []
        for number, pair in enumerate(interleaved(kind, steps, arguments.remediate)):
            if number < WARM_UP[kind]:
                in_situ.seconds = 0.0
                continue
            pairs.append(pair)
            spent = in_situ.seconds
        bare = statistics.median(first for first, _ in pairs)
        watched = statistics.median(second for _, second in pairs)
        paired = statistics.median(second - first for first, second in pairs)
        own = spent / len(pairs)
        print(
            f"\r{kind:6}{1e6 * bare:8.0f}us{1e6 * watched:9.0f}us{watched / bare:8.4f}{1e6 * paired:8.1f}us"
            f"{1e6 * own:8.1f}us{1 + own / bare:8.4f}{BUDGETS[kind]:7.3f}"
        )


if __name__ == "__main__":
    main()
