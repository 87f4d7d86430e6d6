"""What Tollgate may take at most: a run that finds more has failed."""

from __future__ import annotations

from dataclasses import dataclass

from .cases import CASES, Idle
from .proxies import PROXIES, SUBJECT
from .report import IDLE_FIGURE, Spread, spread

MOST_IDLE_KIB = 4.0

# Caches of a worker are there once: of 1,000 connections each would carry 1 KiB of them.
MANY = 10_000


@dataclass(frozen=True)
class Held:
    """How a median stands to its bound."""

    case: str
    found: Spread

    @property
    def is_met(self) -> bool:
        return self.found.middle <= MOST_IDLE_KIB

    def __str__(self) -> str:
        return (f"{CASES[self.case].title}: {PROXIES[SUBJECT].label} {self.found.middle:.2f} KiB each, wanted at most "
                f"{MOST_IDLE_KIB:.0f}: {'met' if self.is_met else 'missed'}")


def held(results: dict) -> list[Held]:
    """Of each case in which Tollgate held so many idle connections that what is there once does not count."""
    found = ((case, spread(results["samples"], case, SUBJECT, IDLE_FIGURE))
             for case in results["about"]["cases"]
             if isinstance(CASES[case], Idle) and CASES[case].connections >= MANY)
    return [Held(case, value) for case, value in found if value]
