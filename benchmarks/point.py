"""Access points: what a question about a day and a month costs, and how it grows with the past.

    python -m benchmarks.point --boards 1000 --months 12

Each site has ten boards and six access points; each board hears all six of its site in every
report: four well, two now well and now weakly. A scan is missed some times a month. The sightings
that the store would keep of that are made by a seeded generator.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import duckdb
import numpy as np

from fleet.ledger import Ledger
from fleet.period import Period
from fleet.point import Point
from fleet.stint import Stint
from fleet.store import schema
from fleet.store.air import SCAN

START_S, DAY_S, MONTH_DAYS = 1_793_404_800, 86_400, 30
SITE_BOARDS, SITE_POINTS = 10, 6
BOARDS, MONTHS = 50, 2
# How often a day what is said of an access point changes: of a steady one, and of a weak one.
_STEADY_A_DAY, _WEAK_A_DAY = 2, 25


def _board(number: int) -> str:
    return f"np-{number:012x}"


def _keep(connection: duckdb.DuckDBPyConnection, boards: int, days: int) -> int:
    """Fill `sighting`; return how many there are."""
    connection.execute(schema.SCHEMA)
    chance = np.random.default_rng(1)
    end_s = START_S + days * DAY_S
    for board in range(boards):
        parts = []
        for point in range(SITE_POINTS + 1):
            weak = point > 4
            a_day = _WEAK_A_DAY if weak else _STEADY_A_DAY if point else 1 / 3
            cuts = chance.integers(START_S, end_s, chance.poisson(a_day * days)) // 60 * 60
            edges = np.unique(np.concatenate([[START_S, end_s], cuts]))
            start_s, stop_s = edges[:-1], edges[1:].copy()
            stop_s[:-1] -= 0 if weak else 60
            bssid = 1000 + board // SITE_BOARDS * SITE_POINTS + point if point else SCAN
            well = np.arange(len(start_s)) % 2 == 0 if weak else np.full(len(start_s), point > 0)
            told = start_s < stop_s
            parts.append((np.full(told.sum(), bssid), start_s[told], stop_s[told], well[told]))
        names = ("bssid", "start_s", "end_s", "well")
        columns = (np.concatenate(each) for each in zip(*parts, strict=True))
        connection.register("given", dict(zip(names, columns, strict=True)))
        connection.execute("INSERT INTO sighting SELECT $1, * FROM given", [_board(board)])
        connection.unregister("given")
    connection.execute("CREATE TEMP VIEW report AS FROM recent")
    ((count,),) = connection.execute("SELECT count(*) FROM sighting").fetchall()
    return int(count)


def measure(boards: int, months: int) -> dict[str, object]:
    """Ask for the last day and the last month of so many months."""
    days = months * MONTH_DAYS
    end_s = START_S + days * DAY_S
    stints = [Stint(_board(n), _board(n), f"site-{n // SITE_BOARDS}") for n in range(boards)]
    points = [
        Point(f"access-point/{n}", f"site-{n // SITE_POINTS}", (1001 + n,))
        for n in range(boards // SITE_BOARDS * SITE_POINTS)
    ]
    found: dict[str, object] = {"boards": boards, "months": months, "access_points": len(points)}
    with duckdb.connect() as connection:
        found["sightings"] = _keep(connection, boards, days)
        for name, length_s in (("day_s", DAY_S), ("month_s", MONTH_DAYS * DAY_S)):
            period = Period(end_s - length_s, end_s)
            took = []
            for _ in range(3):
                begin = time.perf_counter()
                told = Ledger(connection, period, stints, [], points).seconds("access-point")
                took.append(time.perf_counter() - begin)
                if any(sum(states) != length_s for states in told.values()):
                    raise RuntimeError("the states of an access point do not sum to the whole")
            found[name] = round(statistics.median(took), 2)
    return found


def main() -> None:
    """Measure, with half as long a past beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boards", type=int, default=BOARDS)
    parser.add_argument("--months", type=int, default=MONTHS)
    chosen = parser.parse_args()
    half = measure(chosen.boards, max(1, chosen.months // 2))
    print(json.dumps({"whole": measure(chosen.boards, chosen.months), "half": half}))


if __name__ == "__main__":
    main()
