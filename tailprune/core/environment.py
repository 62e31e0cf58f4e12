"""Where a latency holds: the conditions under which a table was measured."""

from __future__ import annotations

from dataclasses import dataclass, fields

#: What a step depends on: a table that differs here belongs to another machine, and is refused.
REFUSED = (
    "device",
    "num_sms",
    "partition",
    "power_mode",
    "runtime",
    "fusion",
    "l2",
    "protocol",
    "tf32",
    "autotuning",
    "threads",
    "allocator",
)
#: What usually leaves steps in place: a difference is a warning and a reason for a drift check, else every upgrade kills the table.
WARNED = ("driver", "cuda", "cudnn", "torch", "runtime_version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Everything but the shape that decides a latency. Batch, dtype and layout are in the shape."""

    device: str
    num_sms: int = 1
    partition: str = ""
    power_mode: str = ""
    runtime: str = "eager"  # eager | cuda-graph | compile | onnxruntime | imported | simulated
    fusion: str = "norm folded"
    l2: str = "warm"  # warm | cold | the MiB of other work between two calls of a layer, such as "4 MiB"
    protocol: int = 1  # how the clock that took these times reads a call: the version of it, where that was changed
    tf32: bool = False
    autotuning: bool = False
    threads: int = 1
    allocator: str = ""
    driver: str = ""
    cuda: str = ""
    cudnn: str = ""
    torch: str = ""
    runtime_version: str = ""  # of a runtime that is not PyTorch's own

    def differences(
        self, other: Environment
    ) -> tuple[dict[str, tuple[object, object]], dict[str, tuple[object, object]]]:
        """(refused, warned): field -> (mine, theirs)."""
        refused = {n: (getattr(self, n), getattr(other, n)) for n in REFUSED if getattr(self, n) != getattr(other, n)}
        warned = {n: (getattr(self, n), getattr(other, n)) for n in WARNED if getattr(self, n) != getattr(other, n)}
        return refused, warned

    def as_dict(self) -> dict[str, object]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __str__(self) -> str:
        extra = [
            f"{self.num_sms} SMs" if self.num_sms > 1 else f"{self.threads} thread{'s' * (self.threads > 1)}",
            self.partition,
            self.runtime,
            self.torch and f"torch {self.torch}",
        ]
        return ", ".join([self.device, *(e for e in extra if e)])
