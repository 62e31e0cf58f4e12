"""Whole models against each other: interleaved in one run, so that what disturbs one disturbs all."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

import torch
from torch import Tensor, nn

from ..core.environment import Environment
from ..core.errors import InvalidShape, TailpruneError
from ..core.sample import calm_times
from .blocks import TORCH_DTYPES
from .clocks import ClockReading, Clocks, load_nvml
from .device_timer import describe_environment, find_device
from .heap import holes_plugged
from .machine import pinned
from .memory_format import stray_weights
from .random_data import RandomBank
from .readings import Prepared
from .runtimes import choose_runtime
from .stopping import interval_rank, median_interval

CONFIDENCE = 0.95
#: Rounds that an interval of the median takes.
FEWEST = next(count for count in range(1, 100) if interval_rank(count, CONFIDENCE))
#: On a crowded host up to so many times the rounds asked for are measured, to find as many calm ones of every model.
MOST_TURNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether one model is faster than another: the median of per-round time ratios and its 95 % interval."""

    outcome: Literal["faster", "slower", "ambiguous"]
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.outcome}: {self.ratio:.3f} of the time ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTimings:
    """Every raw time of every model, one per round; round i of all models ran within one turn of the wheel.

    `crowded` are each model's rounds during which other work took or shared the core. Statistics leave them out as soon as enough
    others are there for an interval, and of those the times that are no calm ones (`core.sample.calm_times`): such a time is not
    the network's, and a whole pass is hit far more often than one layer. `parts_us` are each model's times between two songs of
    the canary, one tuple per round: parts as short as a layer, of which most are left alone.
    """

    times_us: Mapping[str, tuple[float, ...]]
    environment: Environment
    input_shapes: tuple[tuple[int, ...], ...]
    dtype: str
    memory_format: str
    notes: tuple[str, ...] = ()
    crowded: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    parts_us: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)

    def _of(self, *names: str) -> list[tuple[float, ...]]:
        """Per round that counts for all of these models: their times."""
        for name in names:
            if name not in self.times_us:
                raise InvalidShape(f"No model named {name!r} was measured; measured were {', '.join(self.times_us)}.")
        every = list(zip(*(self.times_us[name] for name in names), strict=True))
        crowded = {turn for name in names for turn in self.crowded.get(name, ())}
        heard = [times for turn, times in enumerate(every) if turn not in crowded]
        heard = heard if len(heard) >= FEWEST else every
        most = [max(calm_times(times)) for times in zip(*heard, strict=True)]
        calm = [times for times in heard if all(us <= limit for us, limit in zip(times, most, strict=True))]
        return calm if len(calm) >= FEWEST else heard

    def median_us(self, name: str) -> float:
        return median(us for (us,) in self._of(name))

    def undisturbed_us(self, name: str) -> float:
        """What a pass takes where nothing else disturbs any part of it: the sum of the parts' own medians over their calm times.

        A sum of layers is such a sum: lay it beside this. On a shared machine it is less than `median_us`, since hardly any pass
        is left alone from end to end. `median_us` where there are no parts.
        """
        if name not in self.parts_us:
            return self.median_us(name)
        return sum(median(calm_times(part)) for part in zip(*self.parts_us[name], strict=True))

    def interval_us(self, name: str) -> tuple[float, float]:
        """Where the model's true median lies, at 95 %."""
        return median_interval([us for (us,) in self._of(name)], CONFIDENCE)

    def verdict(self, name: str, against: str) -> Verdict:
        """Is `name` faster than `against`? From ratios within each round, so that drift over rounds cancels.

        Faster where the whole interval of the ratio's median lies below 1, slower where above, else ambiguous.
        """
        ratios = [mine / other for mine, other in self._of(name, against)]
        low, high = median_interval(ratios, CONFIDENCE)
        outcome: Literal["faster", "slower", "ambiguous"] = (
            "faster" if high < 1 else "slower" if low > 1 else "ambiguous"
        )
        return Verdict(outcome=outcome, ratio=median(ratios), low=low, high=high)


def measure_model(
    models: Mapping[str, nn.Module],
    example_inputs: Tensor | Sequence[Tensor],
    *,
    device: str | torch.device = "cpu",
    threads: int = 1,
    rounds: int = 30,
    max_seconds: float = 120.0,
    runtime: str | None = None,
    l2: str = "warm",
    tf32: bool = False,
    autotuning: bool = False,
    memory_format: str = "channels_last",
    dtype: str | None = None,
) -> ModelTimings:
    """How long do these models take, measured against each other in one run?

    Copies of the models run as they are (fold norms first where they are deployed folded) in eval and inference mode, one
    untimed call before each timed one, in an order that shifts by one each round. They are laid out in `memory_format`; where
    that changes a network that runs channels last already, a note says so. Ends after `rounds` that no other work disturbed for
    any model, after three times as many in all, or after `max_seconds` once the medians have an interval. A constant floating input (zeros) is replaced by random numbers.
    `dtype` (float16, say) converts the copies and floating inputs to what the models are deployed in.
    Settings are those of `DeviceTimer`, so that a sum of its blocks can be laid beside the result; but on a CPU nothing
    runs between two passes, whatever `l2` says: inside a network the other layers do that.

    >>> timings = measure_model({"dense": nn.Linear(64, 64), "pruned": nn.Linear(64, 16)}, torch.randn(8, 64), rounds=6)
    >>> timings.verdict("pruned", "dense").outcome in ("faster", "slower", "ambiguous")
    True
    """
    if not models or rounds < FEWEST:
        raise InvalidShape(
            f"Measuring needs at least one model and {FEWEST} rounds, got {len(models)} models and {rounds} rounds."
        )
    if memory_format not in ("channels_last", "contiguous"):
        raise InvalidShape(f"Unknown memory_format {memory_format!r}; allowed: channels_last, contiguous.")
    if dtype not in (None, *TORCH_DTYPES):
        raise InvalidShape(f"PyTorch runs no model in {dtype!r}; allowed: {', '.join(TORCH_DTYPES)}.")
    run_in = TORCH_DTYPES[dtype] if dtype else None
    where = find_device(device)
    on_cuda = where.type == "cuda"
    chosen = choose_runtime(where, runtime, l2 if on_cuda else "warm", threads=threads)
    clocks = Clocks(where, load_nvml()) if on_cuda else None
    read_clocks = clocks.read if clocks else ClockReading
    environment = describe_environment(
        where, read_clocks(), threads=threads, runtime=chosen, tf32=tf32 and on_cuda, autotuning=autotuning and on_cuda
    )  # fmt: skip
    layout = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
    given = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    inputs = tuple(_placed(tensor, where, layout, run_in) for tensor in given)

    prepared: dict[str, Prepared] = {}
    times_us: dict[str, list[float]] = {name: [] for name in models}
    crowded: dict[str, list[int]] = {name: [] for name in models}
    parts_us: dict[str, list[tuple[float, ...]]] = {name: [] for name in models}
    notes: set[str] = set()
    with pinned(threads=environment.threads, tf32=tf32, autotuning=autotuning), holes_plugged():
        for name, model in models.items():
            stray = stray_weights(model, given) if memory_format == "channels_last" else ()
            if stray:
                notes.add(
                    f"{len(stray)} of the weights of {name!r} contiguous ({stray[0]} first): measured channels_last, but as it is "
                    "the model rearranges them at every call; use model.to(memory_format=torch.channels_last)"
                )
            try:
                twin = copy.deepcopy(model).eval().to(device=where, dtype=run_in).to(memory_format=layout)
                prepared[name] = chosen.prepare(twin, inputs, whole=True)
            except RuntimeError as error:
                reason = str(error).strip().partition("\n")[0]
                raise TailpruneError(
                    f"Model {name!r} does not run on {environment.device} with inputs of "
                    f"{', '.join(str(tuple(tensor.shape)) for tensor in inputs)}: {reason}."
                ) from error
        start = time.perf_counter()
        for turn in range(MOST_TURNS * rounds):
            names = list(models)
            first = turn % len(names)
            readings = {name: prepared[name].read() for name in names[first:] + names[:first]}
            if all(math.isfinite(reading.us) and reading.us > 0 for reading in readings.values()):
                for name, reading in readings.items():
                    if reading.disturbed:
                        crowded[name].append(len(times_us[name]))
                    times_us[name].append(reading.us)
                    parts_us[name].append(reading.parts_us)
            else:
                notes.add("rounds with a time that was not positive are left out")
            notes.update(filter(None, [read_clocks().note]))
            if turn + 1 >= rounds and all(turn + 1 - len(crowded[name]) >= rounds for name in names):
                break
            if turn + 1 >= FEWEST and time.perf_counter() - start > max_seconds:
                break
        busy = {turn for turns in crowded.values() for turn in turns}
        if busy:
            notes.add(f"the core was taken or shared during {len(busy)} of {turn + 1} rounds")
    return ModelTimings(
        times_us={name: tuple(times) for name, times in times_us.items()},
        environment=environment,
        input_shapes=tuple(tuple(tensor.shape) for tensor in inputs),
        dtype=str(inputs[0].dtype).removeprefix("torch."),
        memory_format=memory_format,
        notes=tuple(sorted(notes)),
        crowded={name: tuple(turns) for name, turns in crowded.items() if turns},
        parts_us={name: tuple(parts) for name, parts in parts_us.items() if _comparable(parts)},
    )


def _comparable(parts_us: Sequence[tuple[float, ...]]) -> bool:
    """Whether passes were listened to inside, each in the same places: a network may choose its modules by its input."""
    return len({len(parts) for parts in parts_us}) == 1 and len(parts_us[0]) > 1


def _placed(tensor: Tensor, device: torch.device, layout: torch.memory_format, dtype: torch.dtype | None) -> Tensor:
    """The input on the device in the asked layout and dtype; numbers to compute on where it holds only one."""
    if tensor.is_floating_point() and tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
        tensor = RandomBank("cpu").view(tuple(tensor.shape), tensor.dtype)
    tensor = tensor.detach().to(device, dtype if tensor.is_floating_point() else None)
    return tensor.contiguous(memory_format=layout) if tensor.dim() == 4 else tensor
