"""The signals of the model itself: its parameters, modules, activations and gradients, measured at sample steps."""

from lossdoctor.signal import Signal

__all__ = ["MODEL_SIGNALS"]

MODEL_SIGNALS = (
    Signal(
        "clipped",
        "step",
        "1",
        "1 where clipping (by norm or by value) made the gradients smaller by more than 0.1 %, else 0",
        how="record the run with Monitor",
    ),
    Signal(
        "parameters_without_gradient",
        "step",
        "parameters",
        "parameter tensors that require a gradient and had none at two sample steps in a row; run.json names them",
        how="record the run with Monitor",
    ),
    Signal(
        "parameters_without_optimizer",
        "step",
        "parameters",
        "parameter tensors that require a gradient and are in no parameter group, nor changed by others; run.json has "
        "them",
        how="record the run with Monitor",
    ),
    Signal(
        "parameters_never_moved",
        "step",
        "parameters",
        "parameter tensors with gradients and a learning rate that did not change at three sample steps or more, nor "
        "at any; run.json names them",
        how="record the run with Monitor",
    ),
    Signal(
        "calls_without_step",
        "step",
        "calls",
        "calls of monitor.step in a row with a backward pass and no step of the optimizer; only where nothing moved",
        how="record the run with Monitor",
    ),
    Signal(
        "frozen_parameters",
        "step",
        "parameters",
        "parameter tensors that require no gradient",
        how="record the run with Monitor",
    ),
    Signal(
        "modules_in_eval",
        "step",
        "modules",
        "dropout and BatchNorm modules in eval mode at a training step, outside of frozen parts; run.json names them",
        how="record the run with Monitor",
    ),
    Signal(
        "modules_in_eval_share",
        "step",
        "1",
        "the same as a share of all such modules outside of frozen parts: 1 where model.train() is missing",
        how="record the run with Monitor",
    ),
    Signal(
        "batch_norm_shift",
        "step",
        "1",
        "|batch mean - running mean| / sqrt(running variance + eps), median over channels, of the BatchNorm where "
        "it is largest",
        how="record the run with Monitor",
    ),
    Signal(
        "batch_norm_variance_ratio",
        "step",
        "1",
        "batch variance / running variance, median over channels, of the BatchNorm layer where it is farthest from 1",
        how="record the run with Monitor",
    ),
    Signal(
        "gradient_cosine",
        "step",
        "1",
        "cosine between the gradients of a sample step and of the one after it, from a random projection (± 0.02)",
        how="record the run with Monitor",
    ),
    Signal(
        "gradient_left_over",
        "step",
        "1",
        "1 where the gradient of the step before was not zeroed when the first backward pass of this one began, else 0",
        how="record the run with Monitor and one optimizer",
    ),
    Signal(
        "grad_zero_share",
        "step",
        "1",
        "share of exact zeros in fp16 and bf16 gradients, embeddings excepted",
        how="train with weights in fp16 or bf16 under Monitor",
    ),
    Signal(
        "lost_update_share",
        "step",
        "1",
        "share of fp16 and bf16 weights with a gradient that the step did not change: rounded away",
        how="train with weights in fp16 or bf16 under Monitor",
    ),
    Signal(
        "layer_activation_std",
        "layer",
        "1",
        "standard deviation of the layer's output in one batch",
        how="record the run with Monitor, without torch.compile",
    ),
    Signal(
        "layer_dead_share",
        "layer",
        "1",
        "share of the units of the ReLU behind the layer that are active nowhere in one batch of 16 or more",
        how="use nn.ReLU modules, not F.relu, without torch.compile",
    ),
    Signal(
        "layer_saturated_share",
        "layer",
        "1",
        "share of outputs of the tanh (beyond 0.99) or sigmoid (outside 0.01..0.99) behind the layer that are pinned",
        how="use nn.Tanh and nn.Sigmoid modules, not functions, without torch.compile",
    ),
    Signal(
        "layer_batch_norm_shift",
        "layer",
        "1",
        "|batch mean - running mean| / sqrt(running variance + eps) of a BatchNorm layer, median over channels",
        how="record the run with Monitor, without torch.compile",
    ),
)
