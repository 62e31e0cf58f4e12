"""Where does a network's time go, and why is it not faster? The doctor places every layer of a pruned network on its step,
prices what the step holds and the width does not use, says what binds the layer, and names the changes that would help.
"""

from __future__ import annotations

from .binding import Binding, Bound
from .changes import Change
from .diagnosis import Diagnosis, LayerFinding
from .doctor import diagnose
from .payoff import BatchTime, Payoff
from .places import Place

__all__ = ["BatchTime", "Binding", "Bound", "Change", "Diagnosis", "LayerFinding", "Payoff", "Place", "diagnose"]
