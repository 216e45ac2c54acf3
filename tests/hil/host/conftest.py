"""A bed of real hosts for the tests of a module."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hil import tool
from hil.archive import FetchError
from hil.host import image
from hil.host.bed import Bed, refusal


def needs_hosts() -> None:
    """Skip with the reason where no host can be had; in CI, run by root, that is a failure."""
    reason = refusal()
    try:
        if not reason:
            tool.demand(tool.NSPAWN)
            for suite in image.SUITES:
                image.build(suite)
    except FetchError as error:
        reason = f"{error.message}; {error.hint}"
    if reason and os.environ.get("CI") == "true" and os.geteuid() == 0:
        pytest.fail(f"in CI, as root, no host for tests may be missing: {reason}", pytrace=False)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def hosts_possible() -> None:
    needs_hosts()


@pytest.fixture(scope="module")
def bed(hosts_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with Bed(tmp_path_factory.mktemp("hosts") / "bed") as made:
        yield made
