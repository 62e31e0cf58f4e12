"""Property tests draw new examples at a desk and the same ones in CI, where a verdict must not depend on luck."""

import os

import pytest
from hypothesis import settings

from tailprune.timing import host_clock
from tailprune.timing.canary import Canary

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


@pytest.fixture
def calm_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that count readings: on a core that is never shared none is taken again or left out."""
    monkeypatch.setattr(Canary, "is_slow", lambda self: False)
    monkeypatch.setattr(host_clock, "preemptions", lambda: 0)
