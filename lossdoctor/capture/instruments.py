"""The instruments that look into a model at sample steps: modules, activations, gradients.

Everything is put in place when the record of a sample step is opened, and taken out again when it is finished: a step
that is not sampled costs nothing. Pairs of gradients are compared at a sample step and the one after it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lossdoctor.capture.faults import Faults
from lossdoctor.capture.forwards import ActivationSampler
from lossdoctor.capture.gradients import LOW_PRECISION, Sketcher, evenly, lost_updates, nonzero, stride_of
from lossdoctor.capture.measures import local
from lossdoctor.capture.modules import Inventory, in_eval, precision_of
from lossdoctor.capture.names import Layer
from lossdoctor.capture.parameters import ParameterWatch
from lossdoctor.capture.probe import Probe
from lossdoctor.capture.record import Part, Record
from lossdoctor.capture.ring import Drain
from lossdoctor.runs.info import ModelChecks, RunInfo
from lossdoctor.runs.tables import Column

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = ["Instruments"]

_LOOK_AGAIN = 16
"""Sample steps after which the model is searched for modules and parameters again."""


class Instruments:
    """Looks into one model at the records it is told of."""

    def __init__(
        self, model: nn.Module, layers: Sequence[Layer], optimizers: Sequence[Optimizer], drain: Drain, faults: Faults
    ) -> None:
        self._model, self._layers, self._optimizers, self._drain = model, layers, optimizers, drain
        self._faults = faults
        self._inventory = Inventory(model, layers)
        self._sampler = ActivationSampler(model, faults)
        self._parameters = ParameterWatch(optimizers)
        self._sketcher = Sketcher()
        self._sketches: dict[tuple[int, torch.device], tuple[tuple[int, ...], Tensor]] = {}
        """Projections of the gradients of the record before, and whose they are."""
        self.compares = False
        """Whether the gradients of the next record are compared with those of the last."""
        self._probe: Probe | None = None
        self._record: Record | None = None
        self._handles: list[RemovableHandle] = []
        self._copies: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self._eval: list[str] = []
        self._signature: tuple[int, ...] = ()
        self._told: ModelChecks | None = None
        self._inspecting = faults.protect("gradient samples", self._inspect)
        self._sketching = faults.protect("gradient directions", self._sketch)
        self._losing = faults.protect("low-precision updates", self._compare_copies)
        self._copying = faults.protect("low-precision updates", self._copy)
        # Made once: to keep dynamo out of a function takes longer than many a step.
        self._hooks = [
            (self._hook("gradient samples", self._before, number), self._hook("gradient samples", self._after, number))
            for number in range(len(optimizers))
        ]
        self._completing = faults.protect("model signals", self._complete)
        self.opened = faults.guard("model signals", self._opened)
        self.finished = faults.guard("model signals", self._finished)

    # -- a record begins and ends

    def _opened(self, record: Record) -> None:
        """A record begins. It gets a probe if there is something to look at."""
        compares, self.compares = self.compares, False
        self._clear()
        if not compares:
            self._sketches.clear()
        if not (record.samples_due or compares):
            return
        self._record, self._probe = record, Probe()
        record.probe = self._probe
        if record.samples_due:
            self._look_again()
            self._parameters.begin(self._inventory)
            self._sampler.targets = self._inventory.targets
            self._sampler.attach()
        for number, optimizer in enumerate(self._optimizers):
            before = optimizer.register_step_pre_hook(self._hooks[number][0])
            after = optimizer.register_step_post_hook(self._hooks[number][1])
            # First, to see gradients before a doctor who blocks a step takes them away and after he gave them back.
            optimizer._optimizer_step_pre_hooks.move_to_end(before.id, last=False)  # type: ignore[attr-defined]  # noqa: SLF001
            optimizer._optimizer_step_post_hooks.move_to_end(after.id, last=False)  # type: ignore[attr-defined]  # noqa: SLF001
            self._handles += (before, after)

    def _finished(self, record: Record) -> None:
        """A record ends: send what was measured on its way."""
        probe = record.probe
        if probe is None or probe is not self._probe:
            return
        found = self._sampler.take()
        by_device: dict[torch.device, list[tuple[str, int, Tensor]]] = {}
        for one in found:
            by_device.setdefault(one[2].device, []).append(one)
        for measured in by_device.values():
            self._drain.scalars([value for _, _, value in measured], record, probe.layer_sink(measured))
        self._clear()
        if not record.fired or not record.samples_due:
            return
        self.compares = bool(self._sketches)
        inventory, watch, values = self._inventory, self._parameters, record.values
        values["frozen_parameters"] = float(inventory.frozen)
        if inventory.modes:
            self._eval, minding = probe.eval or ([], 0)
            if minding:
                values["modules_in_eval"] = float(len(self._eval))
                values["modules_in_eval_share"] = len(self._eval) / minding
        if watch.samples > 1:
            values["parameters_without_gradient"] = float(len(watch.without_gradient(inventory)))
            values["parameters_without_optimizer"] = float(len(watch.without_optimizer()))

    def completed(self, record: Record, parts: Sequence[Part]) -> Mapping[str, Column]:
        """All numbers of a record have arrived: work out its values, and return its columns over the layers."""
        columns: dict[str, Column] = {}
        if record.probe is None:
            return columns
        self._completing(record, parts, columns)
        return columns

    def close(self) -> None:
        """Take out every hook."""
        self._clear()
        self._sketches.clear()
        self._sampler.close()

    def describe(self, info: RunInfo) -> None:
        """Bring the lists in run.json up to date."""
        inventory, watch, sampler = self._inventory, self._parameters, self._sampler
        told = ModelChecks(
            samples=watch.samples,
            parameters_without_gradient=watch.without_gradient(inventory),
            parameters_without_optimizer=watch.without_optimizer(),
            parameters_never_moved=watch.never_moved(inventory),
            frozen_parameters=inventory.frozen,
            modules_in_eval=self._eval,
            activation_modules=sum(target.kind in {"dead", "tanh", "sigmoid"} for target in inventory.targets),
            activations_unchecked=sampler.unchecked,
            autocast=sampler.autocast,
        )
        if told != self._told:
            self._told = info.checks = told
            info.precision = precision_of(inventory.parameters.values(), autocast=sampler.autocast)

    def _look_again(self) -> None:
        groups = [len(group["params"]) for optimizer in self._optimizers for group in optimizer.param_groups]
        signature = (*groups, self._parameters.samples // _LOOK_AGAIN)
        if signature != self._signature:
            self._signature = signature
            self._inventory = Inventory(self._model, self._layers)

    def _clear(self) -> None:
        self._sampler.detach()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._copies.clear()
        self._probe = self._record = None

    # -- around the optimizer's step

    def _hook(self, instrument: str, function: Callable[[int], None], number: int) -> Callable[..., None]:
        return self._faults.guard(instrument, lambda *_: function(number))

    def _before(self, number: int) -> None:
        probe, record = self._probe, self._record
        if probe is None or record is None:
            return
        parameters = self._held(number)
        if any(one.grad is not None for one in parameters):  # else a closure is to make them, or nobody
            self._inspecting(number, parameters)
        if record.samples_due:
            if probe.eval is None:
                probe.eval = in_eval(self._inventory.modes)
            groups = self._optimizers[number].param_groups
            resting = [group for group in groups if isinstance(group.get("lr"), int | float) and not group["lr"]]
            probe.at_rest.update(id(one) for group in resting for one in group["params"])
            self._copying(number, parameters)

    def _after(self, number: int) -> None:
        probe = self._probe
        if probe is None:
            return
        if number not in probe.inspected:
            self._inspecting(number, self._held(number))
        self._losing(number)
        if self._sampler.has_found:
            self._sampler.detach()

    def _held(self, number: int) -> list[Tensor]:
        return [one for group in self._optimizers[number].param_groups for one in group["params"]]

    def _inspect(self, number: int, parameters: list[Tensor]) -> None:
        """The gradients are complete."""
        probe, record = self._probe, self._record
        if probe is None or record is None:
            return
        probe.inspected.add(number)
        by_device: dict[torch.device, list[tuple[int, Tensor]]] = {}
        for one in parameters:
            gradient = one.grad
            if gradient is not None and gradient.layout == torch.strided and not gradient.is_complex():
                by_device.setdefault(gradient.device, []).append((id(one), local(gradient).detach()))
        if record.samples_due:
            self._parameters.saw(number, parameters)
            for device, found in by_device.items():
                small = [one for at, one in found if one.dtype in LOW_PRECISION and self._is_dense(at)]
                if small:
                    entries = float(sum(map(Tensor.numel, small)))
                    self._drain.scalars(nonzero(small), record, probe.zero_sink((number, device), entries))
        self._sketching(number, by_device)

    def _is_dense(self, parameter: int) -> bool:
        return parameter not in self._inventory.sparse_inputs

    def _sketch(self, number: int, by_device: Mapping[torch.device, list[tuple[int, Tensor]]]) -> None:
        record, probe = self._record, self._probe
        if record is None or probe is None:
            return
        for device, found in by_device.items():
            key, whose = (number, device), tuple(at for at, _ in found)
            sketch = self._sketcher.sketch([gradient for _, gradient in found])
            if sketch is None:
                continue
            known = self._sketches.pop(key, None)
            if known is not None and known[0] == whose:
                pair = torch.stack((known[1], sketch))
                products = (pair @ pair.t()).reshape(-1).unbind()
                self._drain.scalars(products, record, partial(probe.products.__setitem__, key))
            if record.samples_due:
                self._sketches[key] = (whose, sketch)

    def _copy(self, number: int, parameters: list[Tensor]) -> None:
        rest = self._probe.at_rest if self._probe else ()
        low = [one for one in parameters if one.dtype in LOW_PRECISION and one.requires_grad and id(one) not in rest]
        if low:
            self._copies[number] = [(one, evenly(local(one)).clone()) for one in low]

    def _compare_copies(self, number: int) -> None:
        probe, record = self._probe, self._record
        by_device: dict[torch.device, list[Tensor]] = {}
        strides: dict[torch.device, list[int]] = {}
        for one, before in self._copies.pop(number, ()):
            gradient = one.grad
            if gradient is not None and gradient.layout == torch.strided:
                counts = lost_updates(before, evenly(local(one)), evenly(local(gradient)))
                by_device.setdefault(one.device, []).extend(counts)
                strides.setdefault(one.device, []).append(stride_of(local(one)))
        if probe is not None and record is not None:
            for device, counts_there in by_device.items():
                self._drain.scalars(counts_there, record, probe.lost_sink((number, device), strides[device]))

    # -- once the numbers are there

    def _complete(self, record: Record, parts: Sequence[Part], columns: dict[str, Column]) -> None:
        probe, values = record.probe, record.values
        if probe is None:
            return
        took_place = not values.get("skipped") and values.get("learning_rate", 1.0) > 0
        columns |= probe.columns(len(self._layers))
        values |= probe.values(took_place=took_place)
        if took_place and record.samples_due and record.updates:
            self._note_moves(record, probe, parts)
            values["parameters_never_moved"] = float(len(self._parameters.never_moved(self._inventory)))

    def _note_moves(self, record: Record, probe: Probe, parts: Sequence[Part]) -> None:
        for number, updates in record.updates.items():
            reading = record.unclipped.get(number) or record.clipped.get(number)
            ids = parts[number].ids
            if reading is None or len(ids) != len(updates.norms):
                continue
            gradients = np.full(len(ids), np.nan)
            gradients[slice(None) if reading.indexes is None else reading.indexes] = reading.norms
            self._parameters.stepped(ids, updates.norms, gradients, probe.at_rest)
