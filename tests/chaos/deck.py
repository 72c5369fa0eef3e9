"""Draws acts by weight, each as often as its weight says also among few draws."""

from collections.abc import Mapping
from random import Random

JITTER = (0.5, 1.5)  # of what an act gains in each draw


class Deck:
    """Some acts, each with its weight."""

    def __init__(self, weights: Mapping[str, float], dice: Random) -> None:
        self._weights = weights
        self._dice = dice
        whole = sum(weights.values())
        self._credit = {act: dice.random() * whole for act in weights}

    def draw(self) -> str:
        """Return an act: the one that has gained most since it was drawn."""
        for act, weight in self._weights.items():
            self._credit[act] += weight * self._dice.uniform(*JITTER)
        drawn = max(self._credit, key=lambda act: self._credit[act])
        self._credit[drawn] -= sum(self._weights.values())
        return drawn
