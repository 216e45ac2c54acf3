"""The commented example is the inventory's manual, so it must be right to the last comment."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

from fleet import inventory
from fleet.collect import host_of

EXAMPLE = Path(__file__).parents[2] / "docs" / "inventory.example.toml"


def test_the_example_is_an_inventory(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, tmp_path / "inventory.toml")
    city = inventory.load(tmp_path)
    assert city.boards == {}
    host = host_of(city, "gw-schiller")
    assert (host.user, host.port, host.host_key) == ("netzpuls", 22, None)
    assert host.jump is not None
    assert host.jump.address == "vpn.musterstadt.example"


def test_what_is_commented_out_is_the_default_or_fits(tmp_path: Path) -> None:
    plain = EXAMPLE.read_text()
    full = re.sub(r"^# (\[[a-z_.]+\]|[a-z_]+ = .*)", r"\1", plain, flags=re.MULTILINE)
    assert full.count("\n[") == plain.count("\n[") + 1
    (tmp_path / "inventory.toml").write_text(plain)
    before = inventory.load(tmp_path)
    (tmp_path / "inventory.toml").write_text(full)
    after = inventory.load(tmp_path)
    assert after.city == before.city
    assert after.sites == before.sites
    deadlines = tomllib.loads(full)["measurement"]["deadline_ms"]
    assert after.measurement == before.measurement.model_copy(update={"deadline_ms": deadlines})
    added = {"host_key": "ssh-ed25519 AAAA…", "identity_file": "~/.ssh/netzpuls"}
    expected = before.gateways["gw-goethe"].model_copy(update=added)
    assert after.gateways["gw-goethe"] == expected


def test_every_key_is_in_the_example() -> None:
    text = EXAMPLE.read_text()
    tables = (
        inventory.City,
        inventory.ResolverTarget,
        inventory.InternetTarget,
        inventory.Thresholds,
        inventory.Measurement,
        inventory.Wlan,
        inventory.District,
        inventory.Jump,
        inventory.Gateway,
        inventory.Site,
    )
    for table in tables:
        for key in table.model_fields:
            assert re.search(rf"\b{key}\b( =|\])", text), f"{table.__name__}.{key}"
