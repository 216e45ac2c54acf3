"""How long the store keeps what: `[store]`.

[store]
raw_months = 24        # reports
sealed_months = 12     # the bytes that each board signed
interval_years = 10    # the ledger
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from fleet.document import Table

_MONTH_S = 31 * 86_400
_YEAR_S = 366 * 86_400

Count = Annotated[int, Field(ge=1, le=1200)]


class Retention(Table):
    """How long things are kept; None is for ever. A month has 31 days here, a year 366."""

    raw_months: Count | None = None
    sealed_months: Count | None = None
    interval_years: Count | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        ever = float("inf")
        if (self.sealed_s or ever) > (self.raw_s or ever) and self.sealed_months is not None:
            raise ValueError("sealed_months is more than raw_months: without its report it is none")
        if (self.raw_s or ever) > (self.interval_s or ever):
            raise ValueError("interval_years is less than raw_months: the ledger would have holes")
        return self

    @property
    def raw_s(self) -> int | None:
        """For how long reports are kept."""
        return None if self.raw_months is None else self.raw_months * _MONTH_S

    @property
    def sealed_s(self) -> int | None:
        """For how long their bytes are kept, never longer than they themselves."""
        months = self.sealed_months or self.raw_months
        return None if months is None else months * _MONTH_S

    @property
    def interval_s(self) -> int | None:
        """For how long the ledger is kept."""
        return None if self.interval_years is None else self.interval_years * _YEAR_S
