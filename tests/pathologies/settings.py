"""What the loop can be told: settings, and faults to inject."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from tests.pathologies.burdens import Burden

__all__ = ["Fault", "FaultKind", "Settings"]

FaultKind: TypeAlias = Literal[
    "nan_batch",  # one input value is NaN
    "inf_batch",  # one input value is infinite
    "masked_batch",  # every target is to be ignored: the mean over nothing is NaN
    "bad_batch",  # inputs times the magnitude (text: random characters), targets permuted
    "wrong_targets",  # regression targets times the magnitude
    "nan_gradient",  # the square root of zero joins the loss: the value is finite, one layer's gradient is not
    "lr_factor",  # the learning rate times the magnitude, for good or for `length` steps
    "random_labels",  # targets of other rows, drawn anew for each batch: inputs say nothing about them
    "loss_factor",  # the loss times the magnitude
    "loss_shift",  # the magnitude is added to the loss
    "weight_penalty",  # the magnitude times the sum of all |weights| joins the loss
    "gradient_factor",  # the gradient times the magnitude, the loss as it was: an op with a wrong backward
]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong at `step` (from 1), for `length` steps (None: to the end)."""

    kind: FaultKind
    step: int = 1
    magnitude: float = 1.0
    length: int | None = None

    def active(self, step: int) -> bool:
        """Whether the fault holds at this step."""
        return self.step <= step and (self.length is None or step < self.step + self.length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train. Lengths are optimizer steps, shares are of `steps`."""

    steps: int
    batch_size: int = 64
    evaluate_every: int = 20
    seed: int = 0
    optimizer: Literal["sgd", "momentum", "adam", "adamw", "fused_adamw", "rmsprop", "adagrad", "lion"] = "adamw"
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    schedule: Literal[
        "constant",
        "warmup_cosine",
        "cosine",
        "onecycle",
        "step",
        "linear",
        "exponential",
        "restarts",
        "inverse_sqrt",
        "trapezoid",
        "cyclic",
        "range_test",
    ] = "warmup_cosine"
    schedule_length: float = 1.0
    """What the schedule is made for, in lengths of the training: 4 where it counts micro-batches, 0.05 for epochs."""
    scheduler_stepped: Literal["step", "micro", "epoch", "never"] = "step"
    """After what the loop steps its scheduler."""
    warmup: float = 0.05
    milestones: tuple[float, ...] = (0.5, 0.75)
    """Where the "step" schedule multiplies the learning rate by `gamma`, as shares of the run."""
    gamma: float = 0.1
    clip: float | None = None
    clip_with: Literal["torch", "monitor"] = "torch"
    clip_scaled: bool = False
    """Clip before the scaler unscaled the gradients: the classic mistake."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    scaled: bool = True
    """Under fp16, use a GradScaler."""
    weights: Literal["fp32", "bf16", "fp16"] = "fp32"
    """The dtype of the parameters and inputs."""
    loss_scale: float = 2.0**16
    scale_growth_interval: int = 2000
    accumulation: int = 1
    drop_last: bool = False
    loader: Literal["tensors", "dataloader", "sequential"] = "tensors"
    """What batches come from: rows of tensors, or torch's DataLoader, which may be told not to shuffle."""
    evaluation_batch: int | None = None
    """Validate in batches of so many rows, through the Monitor as training batches are; None: all rows at once."""
    evaluation_scale: float = 1.0
    """Validation inputs are multiplied by it, as by other preprocessing."""
    evaluation_offset: float = 0.0
    """What is added to validation targets that are numbers, as where only those of training were centred."""
    evaluation_sums: bool = False
    """Validate by the sum of the losses over the rows, in place of their mean."""
    batch_norm_momentum: float | None = None
    """The share of a batch in BatchNorm's running statistics; None for torch's 0.1."""
    averaging: float | None = None
    """Validate a moving average of the weights with this decay, from the first step on."""
    watch_validation: bool = False
    """Validate in batches that the Monitor is told are validation's."""
    reported: float = 1.0
    """What the loop reports of the loss, as a multiple of what backward got."""
    resume_at: int | None = None
    """After this step the training goes on from a checkpoint, as a new process would."""
    forgotten: tuple[Literal["weights", "optimizer", "scheduler", "scaler"], ...] = ()
    """What the checkpoint does not hold."""
    train_rows: int | None = None
    """Use only so many training rows."""
    label_noise: float = 0.0
    """Share of training labels that are drawn at random, once."""
    input_scale: float = 1.0
    target_scale: float = 1.0
    frozen: int = 0
    """The first so many parameter tensors do not require a gradient."""
    stale_optimizer: bool = False
    """The optimizer was built for a copy of the model: nothing ever moves."""
    left_out: tuple[int, int] = (0, 0)
    """Tensors that the optimizer is not given, from one number to before another, though they require a gradient."""
    zero_grad: Literal["each step", "never", "before the step"] = "each step"
    """When gradients are set to zero; "before the step" is after backward, so that nothing is left of them."""
    steps_optimizer: bool = True
    """Whether optimizer.step() is called at all."""
    mend_gradients: bool = False
    """The loop replaces non-finite gradients by zero before it steps."""
    skip_bad_losses: bool = False
    """The loop leaves out the update where the loss is not finite."""
    burden: Burden | None = None
    """What slows the training down or fills its memory."""
    faults: tuple[Fault, ...] = ()
