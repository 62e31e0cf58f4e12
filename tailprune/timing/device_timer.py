"""Times deployed blocks on the device that is here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch

from ..core.environment import Environment
from ..core.errors import InvalidShape, TailpruneError
from ..core.protocols import Notebook
from ..core.sample import LatencySample
from ..core.shapes import LayerShape
from ..tables import LatencyTable
from .batches import batches
from .between import FORGOTTEN_MIB
from .blocks import build_block
from .clocks import ClockReading, Clocks, load_nvml
from .heap import holes_plugged, keep_freed_memory
from .machine import available_bytes, cpu_name, pinned
from .protocol import MOST_ALIVE, Series, failed_sample, interleave
from .random_data import RandomBank
from .readings import Prepared
from .runtimes import Runtime, choose_runtime
from .stopping import StoppingRule

#: Share of the free memory that the weights of waiting blocks may take; inputs and outputs of the running one need the rest.
SHARE_FOR_WEIGHTS = 0.25
#: Unless asked otherwise: CUDA graphs repeat a block in a warm L2; a CPU does between two calls what the rest of a network would.
DEFAULT_L2 = {"cpu": f"{FORGOTTEN_MIB} MiB", "cuda": "warm"}


class DeviceTimer:
    """Times layer shapes on this machine's CPU or CUDA device; implements `core.protocols.ResumableTimer`.

    `precision` is the half-width of the median's 95 % interval at which a shape has settled. A shape that does not
    settle is flagged unstable, one that the device cannot run is a sample without times, flagged with the reason noted.
    `runtime` is "eager", "compile" or "onnxruntime" on a CPU, "cuda-graph" (launch gaps out, the default), "eager" (in) or
    "compile" on CUDA. `l2` is the state of the caches before each call: "warm" or "cold" on CUDA; on a CPU "warm", or the
    MiB of other work right before it, "4 MiB" unless asked otherwise: sums of layers then come nearest the network. With `tf32` float32 shapes may use TF32 as well; tf32 shapes always do. Nothing of the process is left changed but the C
    allocator, which keeps freed memory from then on (`heap.keep_freed_memory`).

    >>> timer = DeviceTimer("cpu", max_visits=6)
    >>> sample = timer.time(LayerShape(op="linear", batch=4, in_channels=16, out_channels=32))
    >>> 0 < len(sample.times_us) <= 6, sample.median_us > 0
    (True, True)
    """

    def __init__(
        self,
        device: str | torch.device = "cpu",
        *,
        threads: int = 1,
        precision: float = 0.01,
        max_visits: int = 25,
        max_seconds: float = 3.0,
        runtime: str | None = None,
        l2: str | None = None,
        tf32: bool = False,
        autotuning: bool = False,
        most_alive: int = MOST_ALIVE,
    ) -> None:
        self.device = find_device(device)
        if threads < 1 or most_alive < 1:
            raise InvalidShape(
                f"A timer needs at least one thread and one shape alive, got {threads} and {most_alive}."
            )
        self.rule = StoppingRule(precision=precision, max_visits=max_visits, max_seconds=max_seconds)
        self.most_alive = most_alive
        on_cuda = self.device.type == "cuda"
        self._bank = RandomBank(self.device)
        l2 = l2 or DEFAULT_L2[self.device.type]
        self._runtime = choose_runtime(self.device, runtime, l2, threads=threads, bank=self._bank)
        self._clocks = Clocks(self.device, load_nvml()) if on_cuda else None
        self._environment = describe_environment(
            self.device, self._read_clocks(), threads=threads, runtime=self._runtime,
            tf32=tf32 and on_cuda, autotuning=autotuning and on_cuda,
        )  # fmt: skip

    @property
    def environment(self) -> Environment:
        return self._environment

    def time(self, shape: LayerShape) -> LatencySample:
        return next(self.time_many([shape]))

    def time_many(self, shapes: Sequence[LayerShape]) -> Iterator[LatencySample]:
        """One sample per distinct shape, interleaved, yielded as each settles. TF32 and other shapes take turns."""
        return self.resume_many(shapes, LatencyTable.in_memory(self.environment))

    def resume_many(self, shapes: Sequence[LayerShape], notebook: Notebook) -> Iterator[LatencySample]:
        """The same, every reading kept in `notebook` as it is taken: a kill loses one, and the next call goes on."""
        for tf32 in (False, True):
            alike = list(dict.fromkeys(shape for shape in shapes if (shape.dtype == "tf32") is tf32))
            for batch in batches(alike, self.most_alive):
                with holes_plugged():
                    yield from interleave(
                        batch,
                        prepare=self._prepare,
                        visit=self._visit,
                        pinned=partial(self._pinned, tf32 or self._environment.tf32),
                        read_clocks=self._read_clocks,
                        rule=self.rule,
                        notebook=notebook,
                        most_alive=self.most_alive,
                        most_bytes=SHARE_FOR_WEIGHTS * available_bytes(self.device) / self._runtime.copies,
                    )

    def _pinned(self, tf32: bool) -> AbstractContextManager[None]:
        return pinned(threads=self._environment.threads, tf32=tf32, autotuning=self._environment.autotuning)

    def _read_clocks(self) -> ClockReading:
        return self._clocks.read() if self._clocks else ClockReading()

    def _prepare(self, shape: LayerShape) -> Prepared | LatencySample:
        free = available_bytes(self.device)
        if shape.num_bytes > free:  # asking anyway could end in the kernel's out-of-memory killer
            return failed_sample(
                shape, "out_of_memory", f"needs {shape.num_bytes / 2**20:,.0f} MiB, {free / 2**20:,.0f} MiB are free"
            )
        try:
            block = build_block(shape, self._bank)
            return self._runtime.prepare(block.module, block.inputs)
        except (RuntimeError, ValueError, MemoryError) as error:
            return self._failure(shape, error)

    def _visit(self, series: Series) -> LatencySample | None:
        try:
            series.visit()
        except (RuntimeError, ValueError, MemoryError) as error:
            return self._failure(series.shape, error)
        return None

    def _failure(self, shape: LayerShape, error: Exception) -> LatencySample:
        """The sample that records why a shape failed; raises where the device itself is lost."""
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if self.device.type == "cuda":
            try:
                torch.cuda.synchronize(self.device)
                torch.cuda.empty_cache()
            except RuntimeError as lost:
                raise TailpruneError(
                    f"{self._environment.device} stopped answering while timing {shape} ({reason}); "
                    "what was measured before is kept. Start a new process and go on from there."
                ) from lost
        return failed_sample(shape, "out_of_memory" if is_out_of_memory(error) else "refused", reason)


def is_out_of_memory(error: Exception) -> bool:
    """PyTorch raises its own class on CUDA, and a RuntimeError from its CPU allocator."""
    texts = ("out of memory", "not enough memory", "can't allocate memory", "cudaerrormemoryallocation")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(text in str(error).lower() for text in texts)


def find_device(device: str | torch.device) -> torch.device:
    """The device of that name with its index; InvalidShape where it is not here."""
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise InvalidShape(f"Cannot time on the device {str(device)!r}; allowed: cpu, cuda, cuda:N.")
    if found.type == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = found.index if found.index is not None else (torch.cuda.current_device() if count else 0)
    if index >= count:
        raise InvalidShape(
            f"There is no {found} here: PyTorch finds {count} CUDA devices. Use cpu, or a simulated timer."
        )
    return torch.device("cuda", index)


def describe_environment(
    device: torch.device, clocks: ClockReading, *, threads: int, runtime: Runtime, tf32: bool, autotuning: bool
) -> Environment:
    """The conditions a time holds for. On CUDA the host's threads do not matter and count as one."""
    common = Environment(device=cpu_name(), runtime=runtime.name, l2=runtime.l2, protocol=runtime.clock.protocol,
                         threads=threads, torch=torch.__version__, runtime_version=runtime.version)  # fmt: skip
    if device.type == "cpu":
        return dataclasses.replace(common, allocator=keep_freed_memory())
    properties = torch.cuda.get_device_properties(device)
    _, mig, profile = properties.name.partition(" MIG ")
    return dataclasses.replace(
        common,
        device=properties.name,
        num_sms=properties.multi_processor_count,
        partition=f"MIG {profile}" if mig else "",
        power_mode=clocks.power_mode,
        tf32=tf32,
        autotuning=autotuning,
        threads=1,
        allocator=f"cuda {torch.cuda.get_allocator_backend()}",
        driver=clocks.driver,
        cuda=torch.version.cuda or "",
        cudnn=str(torch.backends.cudnn.version() or ""),
    )
