"""The decision: which width every channel group gets, which channels stay, and what that was expected to buy."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .artifact import read_artifact, write_artifact
from .errors import FormatError, InvalidShape, PlanMismatch
from .graph import ModelGraph

PLAN_FORMAT, PLAN_VERSION = "tailprune-plan", 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A latency limit: microseconds, a fraction of the original's latency, or the host pruner's own result.

    >>> Budget.parse("60%").resolve(original_us=1000.0, host_us=700.0)
    600.0
    """

    us: float | None = None
    of_original: float | None = None
    of_host: bool = False

    def __post_init__(self) -> None:
        if (self.us is not None) + (self.of_original is not None) + self.of_host != 1:
            raise InvalidShape(
                "A budget is exactly one of: microseconds, a fraction of the original, or the host's own latency."
            )
        value = self.us if self.us is not None else self.of_original
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InvalidShape(f"A budget must be positive and finite, got {value!r}.")

    @classmethod
    def microseconds(cls, us: float) -> Budget:
        return cls(us=us)

    @classmethod
    def fraction(cls, of_original: float) -> Budget:
        return cls(of_original=of_original)

    @classmethod
    def host(cls) -> Budget:
        return cls(of_host=True)

    @classmethod
    def parse(cls, text: str) -> Budget:
        """`60%`, `1800us`, `1.8ms` or `host`."""
        if text.strip().lower() == "host":
            return cls.host()
        match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*(%|us|ms)\s*", text, re.IGNORECASE)
        try:
            number = float(match.group(1)) if match else math.nan
        except ValueError:
            number = math.nan
        if not match or not math.isfinite(number):
            raise InvalidShape(f"Budget {text!r} is not understood; write 60%, 1800us, 1.8ms or host.")
        unit = match.group(2).lower()
        return cls.fraction(number / 100) if unit == "%" else cls.microseconds(number * (1000 if unit == "ms" else 1))

    def resolve(self, *, original_us: float, host_us: float) -> float:
        if self.us is not None:
            return self.us
        return host_us if self.of_original is None else self.of_original * original_us


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupChoice:
    """One group's fate. `kept` are channel indices of the original network, ascending; channels beyond them are new."""

    group: str
    original: int
    host: int
    width: int
    kept: tuple[int, ...]
    reason: str = ""  # why this width: "edge", "host", "shrunk to edge", ...

    def __post_init__(self) -> None:
        if list(self.kept) != sorted(set(self.kept)) or (
            self.kept and not 0 <= self.kept[0] <= self.kept[-1] < self.original
        ):
            raise InvalidShape(
                f"Group {self.group}: kept channels must be distinct, ascending and below {self.original}."
            )
        if (
            self.width < 1
            or (self.width <= self.original and len(self.kept) != self.width)
            or len(self.kept) > self.width
        ):
            raise InvalidShape(
                f"Group {self.group}: {len(self.kept)} kept channels do not make a width of {self.width} out of {self.original}."
            )


@dataclass(frozen=True, kw_only=True)
class WidthPlan:
    """Saving, replaying, diffing and loading a pruned network need nothing else.

    Latencies are sums over layers from one latency source; `latency_kind` says whether those were measured, held or
    modelled. `importance` values are fractions of the original network's (see ChannelScores).
    """

    model: str
    fingerprint: str
    input_shape: tuple[int, ...]
    choices: tuple[GroupChoice, ...]
    policy: str
    goal: str
    reach: int | None = None
    solver: str = ""
    status: str = "optimal"  # optimal | feasible | host
    optimality_gap: float | None = None
    original_us: float
    host_us: float
    predicted_us: float
    budget_us: float | None = None
    latency_kind: str = "measured"
    latency_origin: str = ""
    host_importance: float = 1.0
    importance: float = 1.0
    scores_method: str = ""
    dtype: str = "float32"
    memory_format: str = "channels_last"
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def by_group(self) -> Mapping[str, GroupChoice]:
        return {choice.group: choice for choice in self.choices}

    @property
    def widths(self) -> dict[str, int]:
        return {choice.group: choice.width for choice in self.choices}

    @property
    def host_widths(self) -> dict[str, int]:
        return {choice.group: choice.host for choice in self.choices}

    @property
    def moved(self) -> tuple[GroupChoice, ...]:
        """Groups whose width is not the host's."""
        return tuple(choice for choice in self.choices if choice.width != choice.host)

    @property
    def grown(self) -> tuple[GroupChoice, ...]:
        """Groups wider than in the original network: `widen_model` makes them, `apply_plan` only removes channels."""
        return tuple(choice for choice in self.choices if choice.width > choice.original)

    @property
    def saving(self) -> float:
        """Predicted share of the host's latency saved; negative means slower."""
        return 1 - self.predicted_us / self.host_us

    def check(self, graph: ModelGraph) -> None:
        """Refuse a network this plan was not made for."""
        for choice in self.choices:
            if choice.group not in graph.widths:
                raise PlanMismatch(
                    f"This plan is for {self.model}: it names the channel group {choice.group}, which {graph.model} does not have."
                )
            if graph.widths[choice.group] != choice.original:
                raise PlanMismatch(
                    f"This plan expects {choice.original} channels in {choice.group}, but {graph.model} has {graph.widths[choice.group]}. Apply it to the unpruned network it was made from."
                )
        if self.fingerprint != graph.fingerprint:
            raise PlanMismatch(
                f"This plan was made for {self.model} (fingerprint {self.fingerprint}), but {graph.model} has fingerprint {graph.fingerprint}. Plan again for this network."
            )

    def summary(self) -> str:
        """A few lines for people."""
        kind = (
            ""
            if self.latency_kind == "measured"
            else f" ({'estimated' if self.latency_kind == 'modelled' else self.latency_kind})"
        )
        lines = [
            f"{self.model}: {self.policy}/{self.goal}, {len(self.moved)} of {len(self.choices)} groups moved, {self.status}"
            + (f", gap {self.optimality_gap:.2%}" if self.optimality_gap else ""),
            f"  latency{kind}: original {self.original_us:,.0f} us, host {self.host_us:,.0f} us, plan {self.predicted_us:,.0f} us ({-self.saving:+.1%} against the host)",
            f"  importance kept: host {self.host_importance:.2%}, plan {self.importance:.2%}",
            f"  {self.latency_origin}; batch {self.input_shape[0]}, {self.dtype}, {self.memory_format}",
        ]
        return "\n".join(lines + [f"  warning: {warning}" for warning in self.warnings])

    def diff(self, other: WidthPlan) -> dict[str, tuple[int | None, int | None]]:
        """group -> (width here, width there), where they differ."""
        mine, theirs = self.widths, other.widths
        return {g: (mine.get(g), theirs.get(g)) for g in {**mine, **theirs} if mine.get(g) != theirs.get(g)}

    def to_dict(self) -> dict[str, Any]:
        body = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        body["choices"] = [{f.name: getattr(c, f.name) for f in dataclasses.fields(c)} for c in self.choices]
        return {**body, "versions": dict(self.versions)}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any], *, origin: str = "plan") -> WidthPlan:
        try:
            known = {f.name for f in dataclasses.fields(cls)}
            values = {k: v for k, v in body.items() if k in known}
            values["choices"] = tuple(GroupChoice(**{**c, "kept": tuple(c["kept"])}) for c in body["choices"])
            values["input_shape"], values["warnings"] = tuple(body["input_shape"]), tuple(body.get("warnings", ()))
            return cls(**values)
        except (KeyError, TypeError, InvalidShape) as error:
            raise FormatError(
                f"{origin} is not a complete plan ({error}). Write it again with `tailprune plan`."
            ) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        write_artifact(path, format=PLAN_FORMAT, version=PLAN_VERSION, body=self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> WidthPlan:
        return cls.from_dict(read_artifact(path, format=PLAN_FORMAT, version=PLAN_VERSION), origin=str(path))
