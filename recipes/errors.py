"""What stops a recipe: one sentence for people, as everywhere in tailprune."""

from __future__ import annotations

from tailprune import TailpruneError


class RecipeError(TailpruneError):
    """The data, the weights or the settings cannot be used, or training went wrong."""
