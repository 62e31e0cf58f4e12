"""Where does a network's time go, and why is it not faster? The survey says what share of the device's peak each layer
achieves and what the rest of its time goes into. The doctor places every layer of a pruned network on its step, prices what
the step holds and the width does not use, says what binds the layer, and names the changes that would help.
"""

from __future__ import annotations

from .binding import Binding, Bound
from .changes import Change
from .diagnosis import Diagnosis, LayerFinding
from .doctor import diagnose
from .losses import TimeSplit
from .payoff import BatchTime, Payoff
from .places import Place
from .use import LayerUse, Survey
from .utilization import survey_utilization

__all__ = [
    "BatchTime",
    "Binding",
    "Bound",
    "Change",
    "Diagnosis",
    "LayerFinding",
    "LayerUse",
    "Payoff",
    "Place",
    "Survey",
    "TimeSplit",
    "diagnose",
    "survey_utilization",
]
