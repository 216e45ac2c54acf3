"""The commented example is the inventory's manual, so it must be right to the last comment."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

from fleet import inventory
from fleet.login import host_of

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
    full = re.sub(r"^# (\[\[?[a-z_.]+\]\]?|[a-z_0-9.]+ = .*)", r"\1", plain, flags=re.MULTILINE)
    assert full.count("\n[") == plain.count("\n[") + 14
    (tmp_path / "inventory.toml").write_text(plain)
    before = inventory.load(tmp_path)
    (tmp_path / "inventory.toml").write_text(full)
    after = inventory.load(tmp_path)
    assert after.city == before.city.model_copy(update={"land": "NI"})
    own = {"service": [], "calendar": "teaching", "land": "NI", "provider": "stadtnetz"}
    goethe = before.sites["goethe-schule"].model_copy(update=own)
    assert after.sites == {**before.sites, "goethe-schule": goethe}
    bssids = ["aa:bb:cc:dd:ee:01", "aa:bb:cc:dd:ee:02"]
    point = inventory.AccessPoint(site="goethe-schule", room="Aula", bssids=bssids)
    assert (before.access_points, after.access_points) == ({}, {"aula": point})
    assert list(after.calendars) == ["teaching", "market"]
    hours = after.calendars["teaching"].hours
    assert hours.of_weekday(0) == ((28_200, 33_600), (34_800, 40_200), (41_400, 46_800))
    assert hours.of_weekday(4) == hours.of_weekday(0)[:2]
    assert after.calendars["market"].hours.of_weekday(6) == ((36_000, 86_400),)
    sla = inventory.Sla(kind="school", availability_percent=99.5, calendar="teaching")
    assert after.slas == [sla]
    assert before.retention == inventory.Retention()
    assert after.retention == inventory.Retention(
        raw_months=24, sealed_months=12, interval_years=10
    )
    added = {
        "roots": "roots.pem",
        "target": [inventory.TlsTarget(host="one.example.org", address="203.0.113.82")],
        "service": [inventory.Service(name="Lernplattform", host="lernen.example.org", port=443)],
        "throughput": inventory.Throughput(
            host="probe.example.org", address="203.0.113.80", path="/256k"
        ),
        "deadline_ms": tomllib.loads(full)["measurement"]["deadline_ms"],
    }
    assert after.measurement == before.measurement.model_copy(update=added)
    portal = inventory.Portal(host="login.example.org", address="203.0.113.81", port=443)
    public = before.wlans["public"].model_copy(update={"portal": portal})
    assert after.wlans == {**before.wlans, "public": public}
    assert before.bench is None
    at_desk = {"wlan": "school", "broker_host": "192.168.7.1", "ntp": "192.168.7.1"}
    assert after.bench == inventory.Bench(**at_desk)
    assert before.hardware == {}
    assert after.hardware == {
        "corridor": inventory.Hardware(lan="olimex-esp32-poe"),
        "classroom": inventory.Hardware(
            sensors=["scd4x", "sht4x"], i2c=inventory.I2c(sda=21, scl=22), light=5, led=2
        ),
    }
    proof = {"host_key": "ssh-ed25519 AAAA…", "identity_file": "~/.ssh/netzpuls"}
    expected = before.gateways["gw-goethe"].model_copy(update=proof)
    assert after.gateways["gw-goethe"] == expected


def test_every_key_is_in_the_example() -> None:
    text = EXAMPLE.read_text()
    tables = (
        inventory.City,
        inventory.ResolverTarget,
        inventory.InternetTarget,
        inventory.TlsTarget,
        inventory.Service,
        inventory.Throughput,
        inventory.Thresholds,
        inventory.Measurement,
        inventory.Retention,
        inventory.Wlan,
        inventory.Portal,
        inventory.I2c,
        inventory.Hardware,
        inventory.District,
        inventory.Jump,
        inventory.Gateway,
        inventory.Site,
        inventory.Provider,
        inventory.Calendar,
        inventory.Sla,
    )
    for table in tables:
        for key in table.model_fields:
            assert re.search(rf"\b{key}\b( =|\]|\.\w+ =)", text), f"{table.__name__}.{key}"
