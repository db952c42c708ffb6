"""The signal catalogue: every quantity a rule may judge, with its clock, its unit and what it means.

A *step* signal has one value per record, an *evaluation* signal one per validation, a *layer* signal one per layer at
a sample step. Missing (Arrow null) means "not observed at this tick"; NaN and Inf are observed values.
"""

from collections.abc import Mapping
from types import MappingProxyType

from lossdoctor.data_signals import DATA_SIGNALS
from lossdoctor.model_signals import MODEL_SIGNALS
from lossdoctor.signal import Clock, Fact, Signal, Source

__all__ = ["FACTS", "SIGNALS", "Clock", "Fact", "Signal", "Source"]


def _signals(*signals: Signal) -> Mapping[str, Signal]:
    return MappingProxyType({signal.name: signal for signal in signals})


SIGNALS = _signals(
    # -- step
    Signal("step", "step", "steps", "optimizer steps attempted so far, from 1; rows of a foreign log keep its numbers"),
    Signal("time", "step", "s", "wall-clock time of the record, seconds since the epoch"),
    Signal(
        "train_loss",
        "step",
        "loss",
        "training loss; the mean over the micro-batches of an optimizer step",
        how="pass the loss to monitor.step(loss)",
    ),
    Signal(
        "train_accuracy",
        "step",
        "1",
        "training accuracy of the batch, as the loop reports it",
        how='pass it to monitor.step(loss, metrics={"accuracy": a})',
    ),
    Signal(
        "learning_rate",
        "step",
        "1",
        "the largest effective learning rate over the parameter groups, in force",
        how="give Monitor the optimizer, or log the learning rate",
    ),
    Signal("nominal_learning_rate", "step", "1", "the same before the doctor's multipliers"),
    Signal(
        "schedule_position",
        "step",
        "1",
        "how often the LR scheduler was stepped before this step (its last_epoch), at sample steps",
        how="give Monitor the scheduler: Monitor(..., scheduler=scheduler)",
    ),
    Signal(
        "epoch",
        "step",
        "epochs",
        "passes over the training data begun so far, from 1, at sample steps",
        how="iterate over monitor.batches(loader)",
    ),
    Signal("momentum", "step", "1", "momentum (SGD, RMSprop) or beta1 (Adam family) in force, largest over groups"),
    Signal("beta2", "step", "1", "beta2 (Adam family) or alpha (RMSprop) in force, largest over groups"),
    Signal("weight_decay", "step", "1", "the largest weight decay over the parameter groups, in force"),
    Signal(
        "grad_norm",
        "step",
        "1",
        "global L2 norm of the unscaled gradients before any clipping",
        how="give Monitor the optimizer, or log the gradient norm before clipping",
    ),
    Signal(
        "grad_norm_clipped",
        "step",
        "1",
        "the same as the optimizer used it: unscaled, after any clipping",
        how="record the run with Monitor",
    ),
    Signal("param_norm", "step", "1", "global L2 norm of the trainable parameters before the step, at sample steps"),
    Signal(
        "grad_to_param",
        "step",
        "1",
        "grad_norm / param_norm, at sample steps",
        how="record the run with Monitor",
    ),
    Signal(
        "update_ratio",
        "step",
        "1",
        "|change of the parameters| / |parameters| of one step, at sample steps",
        how="record the run with Monitor",
    ),
    Signal(
        "loss_scale",
        "step",
        "1",
        "the GradScaler's scale when the backward pass ran",
        how="give Monitor the scaler: Monitor(..., scaler=scaler)",
    ),
    Signal(
        "skipped",
        "step",
        "1",
        "1 where the GradScaler skipped the optimizer step, else 0",
        how="give Monitor the scaler: Monitor(..., scaler=scaler)",
    ),
    Signal("clip_scaled", "step", "1", "1 where gradients were changed between backward and unscale_, else 0"),
    Signal("micro_batches", "step", "1", "backward passes merged into this optimizer step"),
    Signal(
        "samples",
        "step",
        "samples",
        "samples of this optimizer step, all micro-batches",
        how="pass samples=len(x) to monitor.step",
    ),
    Signal("tokens", "step", "tokens", "tokens of this optimizer step"),
    Signal("step_time", "step", "s", "wall-clock time since the previous record, evaluation excluded"),
    Signal(
        "data_wait",
        "step",
        "s",
        "time spent waiting for the data loader within step_time",
        how="iterate over monitor.batches(loader)",
    ),
    Signal(
        "time_to_backward",
        "step",
        "s",
        "time from the previous record to the first gradient, in distributed training: until then no replica waits for "
        "another",
        how="train with torch.distributed",
    ),
    # Known to whoever reads the recordings of several ranks.
    Signal(
        "slowest_rank_step_time_ratio",
        "step",
        "1",
        "time_to_backward of the slowest rank / the lower median over the ranks",
        how="give every rank's Monitor the same run_dir",
    ),
    Signal(
        "rank_loss_spread",
        "step",
        "loss",
        "largest - smallest training loss over the ranks",
        how="give every rank's Monitor the same run_dir",
    ),
    Signal(
        "rank_learning_rate_spread",
        "step",
        "1",
        "(largest - smallest) / largest learning rate over the ranks; 0 where they agree",
        how="give every rank's Monitor the same run_dir",
    ),
    Signal(
        "rank_grad_norm_spread",
        "step",
        "1",
        "(largest - smallest) / largest grad_norm over the replicas; 0 where gradients are reduced",
        how="give every rank's Monitor the same run_dir",
    ),
    Signal(
        "rank_param_norm_spread",
        "step",
        "1",
        "(largest - smallest) / largest param_norm over the replicas, at sample steps; 0 where they are in step",
        how="give every rank's Monitor the same run_dir",
    ),
    Signal(
        "resumed",
        "step",
        "1",
        "1 at the first step after a checkpoint was loaded; not recorded elsewhere",
        how="call monitor.load_state_dict with what monitor.state_dict gave the checkpoint",
    ),
    Signal("samples_per_second", "step", "samples/s", "samples / step_time"),
    # -- resources: once a second
    Signal(
        "process_memory",
        "step",
        "bytes",
        "memory of the training process in RAM; once a second",
        how="record the run with Monitor",
    ),
    Signal(
        "device_memory",
        "step",
        "bytes",
        "memory that tensors take on the fullest CUDA device at the end of a step; once a second",
        how="record a training on a GPU with Monitor",
    ),
    Signal(
        "device_memory_peak",
        "step",
        "bytes",
        "the most that tensors ever took on the fullest CUDA device; once a second",
        how="record a training on a GPU with Monitor",
    ),
    Signal(
        "gpu_utilization",
        "step",
        "1",
        "share of time in which the GPUs computed, of the last second or less, mean over devices; once a second",
        how="record a training on a GPU with Monitor, with lossdoctor[gpu] installed",
    ),
    # -- evaluation
    Signal(
        "val_loss",
        "evaluation",
        "loss",
        "validation loss",
        how="report it with monitor.evaluation(loss=...)",
    ),
    Signal(
        "val_accuracy",
        "evaluation",
        "1",
        "validation accuracy, as a fraction or in percent",
        how="report it with monitor.evaluation(accuracy=...)",
    ),
    # -- layer: (ticks, layers), at sample steps
    Signal(
        "layer_grad_norm",
        "layer",
        "1",
        "L2 norm of the layer's unscaled, unclipped gradient",
        how="record the run with Monitor",
    ),
    Signal("layer_param_norm", "layer", "1", "L2 norm of the layer's parameters before the step"),
    Signal(
        "layer_grad_to_param",
        "layer",
        "1",
        "layer_grad_norm / layer_param_norm",
        how="record the run with Monitor",
    ),
    Signal(
        "layer_update_ratio",
        "layer",
        "1",
        "|change of the layer's parameters| / |its parameters| of one step",
        how="record the run with Monitor",
    ),
    *MODEL_SIGNALS,
    *DATA_SIGNALS,
)

FACTS: Mapping[str, Fact] = MappingProxyType(
    {
        fact.name: fact
        for fact in (
            Fact("total_steps", "steps", "optimizer steps the run is planned for"),
            Fact("classes", "classes", "classes of the task, where it is a classification"),
            Fact("outputs", "1", "rows of the last weight matrix: classes, or words of the vocabulary"),
            Fact("train_rows_repeated", "1", "share of the sampled training rows that occurred before in the epoch"),
            Fact("validation_rows_seen", "1", "share of the sampled validation rows that are training rows too"),
            Fact("losses_comparable", "1", "1 where training and validation loss seem to be the same quantity, else 0"),
            Fact("world_size", "ranks", "processes training together"),
            Fact("accumulation", "micro-batches", "micro-batches per optimizer step, as configured"),
            Fact("scale_invariant", "1", "1 where the optimizer ignores the scale of gradients (Adam, Lion), else 0"),
            Fact("optimizers", "1", "number of optimizers"),
            Fact("weights_low_precision", "1", "share of the trained parameters that are held in fp16 or bf16"),
            Fact("parameters", "1", "number of trainable parameters"),
            Fact("layers", "1", "number of layers: modules that own parameters"),
            Fact("has_scheduler", "1", "1 where an LR scheduler was given, else 0"),
            Fact("schedule_length", "1", "steps of the LR scheduler, of its own kind, after which it ends"),
            Fact("schedule_returns", "1", "1 where the LR rises again if the scheduler is stepped further than that"),
            Fact(
                "schedule_reacts",
                "1",
                "1 where a metric or the loop says when the LR scheduler is stepped, else 0",
            ),
            Fact("dropout", "1", "the largest dropout probability in the model"),
            Fact("uses_scaler", "1", "1 where an enabled GradScaler was given, else 0"),
            Fact("is_sgd", "1", "1 where every optimizer is SGD, else 0"),
            Fact("is_adam", "1", "1 where every optimizer is Adam or of its family (AdamW, NAdam, ...), else 0"),
            Fact("is_lion", "1", "1 where every optimizer is Lion, else 0"),
            Fact("is_adagrad", "1", "1 where every optimizer is Adagrad, whose steps shrink for good, else 0"),
            Fact("norm_weight_decay", "1", "the largest weight decay on parameters of normalization layers"),
            Fact("coupled_weight_decay", "1", "the largest weight decay that an Adam adds to its gradients (L2)"),
            Fact("dropout", "1", "the largest dropout probability in the model"),
            Fact("recurrent", "1", "1 where a module is recurrent, else 0"),
            Fact("attention", "1", "1 where a module is attention, else 0"),
            Fact("unsynchronized_batch_norm", "1", "1 where a BatchNorm sees the batch of one device only, else 0"),
            Fact("units_alike", "1", "share of the hidden layers whose units begin as copies, and stay so"),
            Fact("seeded", "1", "1 where the random number generator was seeded, else 0"),
            Fact("autocast", "1", "1 where layers ran under autocast, else 0"),
            Fact("half_precision", "1", "1 where weights or autocast are fp16, else 0"),
            Fact("cuda_devices", "1", "CUDA devices that hold parameters"),
            Fact("compute_capability", "1", "lowest compute capability of those devices: 7.5, 8.0, ..."),
            Fact("machine_memory", "bytes", "memory that the machine, or the container, has"),
            Fact("out_of_memory", "1", "1 where the training ended for want of memory, else 0; unknown while it runs"),
            Fact("labels_out_of_range", "1", "1 where the training ended at a label that is no class, else 0"),
            Fact("killed", "1", "1 where the process vanished without a word, else 0; unknown while it runs"),
        )
    }
)
