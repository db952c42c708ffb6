"""The networks of the corpus, small enough to train in seconds."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

__all__ = ["Autoencoder", "CharRecurrent", "CharTransformer", "VisionTransformer", "cnn", "mlp"]

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
)


class Residual(nn.Module):
    """A block with a way around it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        """Input plus what the block makes of it."""
        return inputs + self.inner(inputs)


class Leading(nn.Module):
    """Sees only the first `count` features: a model that was given too little to go on."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, inputs: Tensor) -> Tensor:
        """The first columns of (rows, features)."""
        return inputs[:, : self.count]


def mlp(
    sizes: tuple[int, int],
    *,
    width: int = 64,
    depth: int = 2,
    activation: str = "relu",
    dropout: float = 0.0,
    norm: str | None = None,
    gain: float | None = None,
    features: int | None = None,
) -> nn.Module:
    """A plain stack of `depth` hidden layers; `gain` replaces torch's initialization by N(0, gain² / fan_in)."""
    inputs = features or sizes[0]
    layers: list[nn.Module] = [nn.Flatten()]
    if features is not None:
        layers.append(Leading(features))
    for index in range(depth):
        layers.append(nn.Linear(inputs if index == 0 else width, width))
        if norm is not None:
            layers.append(nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width))
        layers.append(ACTIVATIONS[activation]())
        if dropout:
            layers.append(nn.Dropout(dropout))
    layers.append(nn.Linear(width if depth else inputs, sizes[1]))
    model = nn.Sequential(*layers)
    if gain is not None:
        for layer in model:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=gain / layer.in_features**0.5)
                nn.init.zeros_(layer.bias)
    return model


def _convolution(inputs: int, outputs: int, norm: str | None, stride: int = 1) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)]
    if norm is not None:
        layers.append(nn.BatchNorm2d(outputs) if norm == "batch" else nn.GroupNorm(4, outputs))
    return layers


def cnn(*, channels: int = 12, norm: str | None = "batch", dropout: float = 0.0, residual: int = 0) -> nn.Module:
    """Two convolutions (the second halves the image), `residual` residual blocks, a linear classifier."""
    blocks: list[nn.Module] = []
    for _ in range(residual):
        inner = [
            *_convolution(2 * channels, 2 * channels, norm),
            nn.ReLU(),
            *_convolution(2 * channels, 2 * channels, norm),
        ]
        blocks += [Residual(nn.Sequential(*inner)), nn.ReLU()]
    return nn.Sequential(
        *_convolution(1, channels, norm),
        nn.ReLU(),
        *_convolution(channels, 2 * channels, norm, stride=2),
        nn.ReLU(),
        *blocks,
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(2 * channels * 16, 10),
    )


class CharTransformer(nn.Module):
    """A decoder-only language model: causal self-attention with pre-normalization."""

    def __init__(
        self,
        alphabet: int,
        context: int,
        *,
        width: int = 48,
        heads: int = 4,
        layers: int = 2,
        dropout: float = 0.0,
        pre_norm: bool = True,
    ) -> None:
        super().__init__()
        self.characters = nn.Embedding(alphabet, width)
        self.positions = nn.Parameter(torch.randn(context, width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=pre_norm
        )
        self.blocks = nn.TransformerEncoder(block, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.scores = nn.Linear(width, alphabet)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context), persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """Scores (rows, context, alphabet) for the next character at each place of (rows, context)."""
        hidden = self.characters(codes) + self.positions
        return self.scores(self.blocks(hidden, mask=self.mask, is_causal=True))


class VisionTransformer(nn.Module):
    """An image of 8 x 8 pixels as 16 patches and a class token through pre-normalized self-attention."""

    def __init__(self, *, width: int = 32, heads: int = 4, layers: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.summary = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(17, width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.scores = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (rows, 10) for the classes of images (rows, 1, 8, 8)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.summary.expand(len(tokens), -1, -1), tokens), dim=1) + self.positions
        return self.scores(self.blocks(tokens)[:, 0])


class CharRecurrent(nn.Module):
    """A recurrent language model; `recurrent_gain` makes its recurrent matrix that multiple of a rotation."""

    def __init__(
        self,
        alphabet: int,
        *,
        kind: str = "gru",
        width: int = 64,
        dropout: float = 0.0,
        recurrent_gain: float | None = None,
    ) -> None:
        super().__init__()
        self.characters = nn.Embedding(alphabet, 24)
        if kind == "gru":
            self.recurrence: nn.RNNBase = nn.GRU(24, width, batch_first=True)
        elif kind == "lstm":
            self.recurrence = nn.LSTM(24, width, batch_first=True)
        else:
            self.recurrence = nn.RNN(24, width, nonlinearity=kind, batch_first=True)
        if recurrent_gain is not None:
            nn.init.orthogonal_(self.recurrence.weight_hh_l0, gain=recurrent_gain)
        self.dropout = nn.Dropout(dropout)
        self.scores = nn.Linear(width, alphabet)

    def forward(self, codes: Tensor) -> Tensor:
        """Scores (rows, context, alphabet) for the next character."""
        hidden, _ = self.recurrence(self.characters(codes))
        return self.scores(self.dropout(hidden))


class Autoencoder(nn.Module):
    """64 pixels through a narrow code and back."""

    def __init__(self, *, width: int = 64, code: int = 8, activation: str = "relu") -> None:
        super().__init__()
        unit = ACTIVATIONS[activation]
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, width), unit(), nn.Linear(width, code))
        self.decoder = nn.Sequential(nn.Linear(code, width), unit(), nn.Linear(width, 64))

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions (rows, 64)."""
        return self.decoder(self.encoder(images))
