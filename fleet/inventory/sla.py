"""What was promised: `[[sla]]`.

[[sla]]
kind = "school"                # the lines of all sites of a kind; or: subject = "city"
availability_percent = 99.5    # of what is known in a month
calendar = "teaching"          # absent: each site's own
coverage_percent = 90          # of less nothing is said
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fleet.document import Table
from fleet.inventory.kind import Text
from fleet.inventory.place import SiteKind

Percent = Annotated[float, Field(gt=0, le=100)]


class Sla(Table):
    """A service level that was agreed on, for a month.

    Attributes:
        kind: the kind of sites for whose lines it is, each for itself; or else
        subject: for what it is, as `fleet uptime --subject` names it.
        calendar: `24/7` or a calendar's id; None is each site's own.
    """

    kind: SiteKind | None = None
    subject: Text | None = None
    availability_percent: Percent
    calendar: Text | None = None
    coverage_percent: Percent = 90.0
