"""Whether readings of memory grow."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

# Of pages that come and go the larger of the two: a share of what there is, or bytes.
NOISE_SHARE = 0.02
NOISE_BYTES = 2**20


@dataclass(frozen=True)
class Growth:
    first: float
    """Median of the first third of the readings, in bytes."""
    last: float
    """The same of the last."""

    @classmethod
    def of(cls, readings: list[int]) -> Growth:
        """Of at least three."""
        third = len(readings) // 3
        return cls(median(readings[:third]), median(readings[-third:]))

    @property
    def grown(self) -> float:
        return self.last - self.first

    @property
    def is_none(self) -> bool:
        return self.grown <= max(NOISE_SHARE * self.first, NOISE_BYTES)
