"""What the gateways said of themselves at their last collection: store/gateways.json.

    {"gw-mitte": {"collected": "…", "certificates": {"gateway": "…", "collector": "…", "ca": "…"}}}

It is no more than a memory: without it the next collection writes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from fleet import file
from fleet.document import Table
from fleet.errors import READABLE, StoreError

_NAME = "gateways.json"


class Visit(Table):
    """One gateway, when it was last collected.

    Attributes:
        certificates: when its certificates end: `gateway`, `collector`, `ca`.
    """

    collected: AwareDatetime
    certificates: dict[str, AwareDatetime]


_Visits = TypeAdapter(dict[str, Visit])


def load(store: Path) -> dict[str, Visit]:
    """Return the last visits, by gateway; none if there were none.

    Raises: StoreError: the file cannot be read.
    """
    path = store / _NAME
    try:
        return _Visits.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}", hint=READABLE) from None
    except ValidationError:
        return {}  # damaged, or of another version


def remember(store: Path, new: Mapping[str, Visit]) -> None:
    """Keep what some gateways said; what others said before stays.

    Raises: StoreError: it cannot be written.
    """
    document = {**load(store), **new}
    try:
        text = json.dumps(_Visits.dump_python(document, mode="json"), indent=1, sort_keys=True)
        file.write(store / _NAME, text + "\n")
    except OSError as error:
        raise StoreError(
            f"cannot write to {store}: {error.strerror}",
            hint="look at free space and rights there",
        ) from None
