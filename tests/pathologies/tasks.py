"""Task families: small factories that give data, a model, a loss and a metric, each a real problem in miniature.

All data ship with scikit-learn, so nothing is downloaded and every training is a function of its seed. A new family is
one factory, entered in `TASKS`; its keyword arguments are what recipes may vary.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import Tensor, nn
from torch.nn import functional

from tests.pathologies import data, padded, policies, preparation, rewiring, transfer
from tests.pathologies.contrastive import PairedEncoders, ViewEncoder, fraction_matched, matching_loss
from tests.pathologies.data import Examples, Task
from tests.pathologies.models import Autoencoder, CharRecurrent, CharTransformer, VisionTransformer, cnn, mlp

__all__ = ["TASKS", "Examples", "Task"]


def _fraction_right(scores: Tensor, targets: Tensor) -> Tensor:
    """Share of rows (or tokens) whose highest score is the target's."""
    return (scores.argmax(-1) == targets).float().mean()


def _fraction_right_binary(scores: Tensor, targets: Tensor) -> Tensor:
    return ((scores > 0) == (targets > 0)).float().mean()


def digits_mlp(*, smoothing: float = 0.0, **model: object) -> Task:
    """Digits by a multilayer perceptron."""
    return _digits_task("digits_mlp", partial(mlp, (64, 10), **model), smoothing)


def digits_cnn(*, smoothing: float = 0.0, **model: object) -> Task:
    """Digits by a convolutional network, with or without normalization and residual blocks."""
    return _digits_task("digits_cnn", partial(cnn, **model), smoothing)


def _digits_task(name: str, build: Callable[[], nn.Module], smoothing: float) -> Task:
    train, validation = data.digits()
    loss = partial(functional.cross_entropy, label_smoothing=smoothing)
    return Task(name, train, validation, build, loss, _fraction_right, classes=10)


def text_transformer(*, context: int = 32, **model: object) -> Task:
    """Next character by a small transformer."""
    return _text_task("text_transformer", context, lambda alphabet: CharTransformer(alphabet, context, **model))


def text_rnn(*, context: int = 32, **model: object) -> Task:
    """Next character by a recurrent network: gru, lstm, tanh or relu."""
    return _text_task("text_rnn", context, lambda alphabet: CharRecurrent(alphabet, **model))


def _text_task(name: str, context: int, build: Callable[[int], nn.Module]) -> Task:
    train, validation, alphabet = data.text(context)
    build_it = partial(build, alphabet)
    return Task(name, train, validation, build_it, _token_loss, _fraction_right, alphabet, tokens_per_row=context)


def _token_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over all tokens of (rows, context, alphabet)."""
    return functional.cross_entropy(scores.flatten(0, 1), targets.flatten())


def padded_text(*, context: int = 128, shortest: float = 0.1, longest: float = 0.3, **model: object) -> Task:
    """Next character in rows of different length, filled up to the context."""
    train, validation, alphabet = padded.padded(context, shortest=shortest, longest=longest)
    build = partial(CharTransformer, alphabet, context, **model)
    return Task(
        "padded_text", train, validation, build, padded.loss, padded.fraction_right, alphabet, tokens_per_row=context
    )


def diabetes(**model: object) -> Task:
    """Regression on standardized targets: predicting the mean costs 1."""
    train, validation = data.diabetes()
    return Task("diabetes", train, validation, partial(mlp, (10, 1), **model), functional.mse_loss)


def breast_cancer(**model: object) -> Task:
    """Binary classification with logits."""
    train, validation = data.breast_cancer()
    loss = functional.binary_cross_entropy_with_logits
    return Task(
        "breast_cancer", train, validation, partial(mlp, (30, 1), **model), loss, _fraction_right_binary, classes=2
    )


def autoencoder(**model: object) -> Task:
    """Reconstruction of digits, as deviations from the mean image: reconstructing nothing but the mean costs 1."""
    train, validation = data.digits()
    mean = train.inputs.mean(0)
    scale = (train.inputs - mean).std()
    train, validation = (
        Examples(part, part.flatten(1)) for part in ((train.inputs - mean) / scale, (validation.inputs - mean) / scale)
    )
    return Task("autoencoder", train, validation, partial(Autoencoder, **model), functional.mse_loss)


def digits_vit(*, smoothing: float = 0.0, **model: object) -> Task:
    """Digits by a vision transformer."""
    return _digits_task("digits_vit", partial(VisionTransformer, **model), smoothing)


def fine_tuning(**model: object) -> Task:
    """New digits for a network that knows others."""
    train, validation = transfer.digits_to_tune_on()
    build = partial(transfer.tuned_network, **model)
    return Task("fine_tuning", train, validation, build, functional.cross_entropy, _fraction_right, classes=5)


def adapters(**model: object) -> Task:
    """New prose for a language model whose weights are frozen, by low-rank adapters."""
    train, validation, alphabet = transfer.prose_to_tune_on()
    build = partial(transfer.adapted_language_model, **model)
    return Task(
        "adapters", train, validation, build, _token_loss, _fraction_right, alphabet, tokens_per_row=transfer.CONTEXT
    )


def views(**model: object) -> Task:
    """Two noisy views of one image, to be found among those of the batch."""
    train, validation = data.digits()
    return Task("views", train, validation, partial(ViewEncoder, **model), matching_loss, fraction_matched)


def halves(**model: object) -> Task:
    """The two halves of one image, to be found among those of the batch."""
    train, validation = data.digits()
    return Task("halves", train, validation, partial(PairedEncoders, **model), matching_loss, fraction_matched)


def heavy_tails(*, robust: bool = False, **model: object) -> Task:
    """Regression on targets with far outliers, by squared error or, if `robust`, by Huber's."""
    train, validation = data.heavy_tails()
    loss = functional.smooth_l1_loss if robust else functional.mse_loss
    return Task("heavy_tails", train, validation, partial(mlp, (16, 1), **model), loss)


def rare_events(**model: object) -> Task:
    """Binary classification where one row in twelve is positive: saying no to all is right in 92 %."""
    train, validation = data.rare_events()
    loss = functional.binary_cross_entropy_with_logits
    return Task(
        "rare_events", train, validation, partial(mlp, (16, 1), **model), loss, _fraction_right_binary, classes=2
    )


def coin(*, flipped: float = 0.3, **model: object) -> Task:
    """Binary classification whose labels are partly chance, in both splits."""
    train, validation = data.coin(flipped)
    loss = functional.binary_cross_entropy_with_logits
    return Task("coin", train, validation, partial(mlp, (8, 1), **model), loss, _fraction_right_binary, classes=2)


def policy(*, arms: int = 3, reward: float = 1.0, entropy: float = 0.0, **model: object) -> Task:
    """Which arm to pull in which situation, by REINFORCE: the training loss need not fall, what is validated does."""
    train, validation = policies.bandit(arms, reward)
    return Task("policy", train, validation, partial(mlp, (6, arms), **model), policies.surrogate(entropy))


def rewired(*, base: str, **changes: object) -> Task:
    """Another task, put together in another way."""
    return rewiring.rewired(TASKS[base], **changes)


def prepared(*, base: str, **changes: object) -> Task:
    """Another task, with another beginning."""
    return preparation.prepared(TASKS[base], **changes)


TASKS: Mapping[str, Callable[..., Task]] = MappingProxyType(
    {
        factory.__name__: factory
        for factory in (
            digits_mlp,
            digits_cnn,
            digits_vit,
            text_transformer,
            text_rnn,
            padded_text,
            diabetes,
            heavy_tails,
            breast_cancer,
            rare_events,
            coin,
            policy,
            autoencoder,
            fine_tuning,
            adapters,
            views,
            halves,
            rewired,
            prepared,
        )
    }
)
