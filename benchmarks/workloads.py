"""The trainings whose steps are timed: three sizes of model, and one with any number of parameter tensors."""

import itertools
import time
from collections.abc import Callable

import torch
from torch import nn


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

        widths = [(3, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1)]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
        self.layers = nn.Sequential(*itertools.starmap(block, widths), *head)
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


class Pieces(nn.Module):
    """1,000,000 parameters in `number` tensors of a size, each used once."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.pieces = nn.ParameterList(torch.full((1_000_000 // number,), 0.01) for _ in range(number))
        self.batch = (torch.ones(1), torch.zeros(1, dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.stack([piece.sum() for piece in self.pieces]).sum()
        return torch.stack((total * x, -total * x), dim=1)


WORKLOADS: dict[str, Callable[[], nn.Module]] = {"mlp": Mlp, "conv": Conv, "gpt": Gpt} | {
    f"pieces-{number}": lambda number=number: Pieces(number) for number in (5, 50, 500, 5000)
}


class Training:
    """One training. `observe`, if set, is called with the loss after each step."""

    def __init__(self, kind: str) -> None:
        torch.manual_seed(0)
        self.model = WORKLOADS[kind]()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.x, y = self.model.batch
        self.y = y.flatten()
        self.observe: Callable[[torch.Tensor], None] | None = None

    def step(self) -> tuple[float, float]:
        """One step; seconds of wall-clock time and of this thread's CPU time."""
        began, cpu = time.perf_counter(), time.thread_time()
        loss = nn.functional.cross_entropy(self.model(self.x), self.y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.observe is not None:
            self.observe(loss)
        return time.perf_counter() - began, time.thread_time() - cpu
