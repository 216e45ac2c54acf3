"""What a check looks at: a city or some of its sites, and what their gateways say right now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleet.gateway.status import Status
from fleet.inventory import Board, Inventory, Site


@dataclass(frozen=True)
class Scope:
    """What is looked at.

    Attributes:
        sites: those that were asked for.
        whole: they are all that the city has.
        live: what gateways said of themselves, by gateway; none if they were not asked.
        now_s: the time, Unix seconds.
    """

    city: Inventory
    sites: Mapping[str, Site]
    whole: bool
    now_s: int
    live: Mapping[str, Status] = field(default_factory=dict)

    @property
    def gateways(self) -> list[str]:
        """The gateways of these sites; with all of them, those without a site as well."""
        if self.whole:
            return sorted(self.city.gateways)
        return sorted({site.gateway for site in self.sites.values()})

    @property
    def boards(self) -> dict[str, Board]:
        """The boards that are in service there."""
        return {
            board_id: board
            for board_id, board in sorted(self.city.boards.items())
            if board.site in self.sites and board.retired is None and board.revoked is None
        }


def of(city: Inventory, sites: Sequence[str], now_s: int) -> Scope:
    """Return what is looked at: all sites if none is named.

    Raises: UsageError: there is no such site.
    """
    chosen = {each: city.site(each) for each in sites} if sites else dict(city.sites)
    return Scope(city, chosen, not sites, now_s)
