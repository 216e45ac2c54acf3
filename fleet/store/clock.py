"""When reports were made: the rules of the clock, as SQL over whole boots.

Within a boot the best clock that it ever had holds, and the monotonic clock carries its time to
the reports made before: to those that knew none, and to those with a worse one. Where that best
clock itself was set back, which would put later reports before earlier ones, the clock by which
most of the boot's reports were made holds for all of them; a step of up to five seconds is none.

Source: docs/fleet.md, "How time is counted", 4.
"""

# ruff: noqa: S608 (the SQL is made of this file's own constants; values go in as parameters)

from __future__ import annotations

from firmware.linkreport import table

_BOOT = "device, key_id, boot"
TRUST = f"CASE WHEN time_s > 0 THEN least(clock, {table.CLOCK_NTP}) ELSE 0 END"


def timed(source: str, kept: str | None = None) -> str:
    """Return SQL for the rows of a table with `at_s`, the time at which each was made.

    Reports of a boot of which nobody knows a time are left out. The table must hold all reports
    of each boot of which it holds any; or those that are still kept, if `kept` is a table of what
    is known of their boots, as the store's `boot`: where the report is gone by which a boot is
    timed, what is known of it holds. Not so of a boot whose clock was set back: that is timed by
    what is left.
    """
    # Only boots that may need it are looked at closer; the monotonic clock's overflow after 497
    # days is no step.
    query = _TIMED
    if kept:
        query = query.replace("HAVING best > 0\n    ),\n", f"\n    ),\n{_GONE}", 1).replace(
            "booted AS (", "left_over AS (", 1
        )
    return query.replace("FROM report", f"FROM {source} AS report").replace("{kept}", kept or "")


_GONE = f"""
    gone AS (
        SELECT k.device, k.key_id, k.boot, k.best, k.boot_cs FROM {{kept}} AS k
            SEMI JOIN left_over USING ({_BOOT})
            ANTI JOIN (SELECT device, key_id, boot, seq FROM report) AS r
                ON k.device = r.device AND k.key_id = r.key_id AND k.boot = r.boot
                    AND k.anchor_seq = r.seq
        WHERE k.best > 0 AND NOT (most_cs - least_cs > 500 AND falls)
    ),
    booted AS (
        SELECT {_BOOT}, coalesce(gone.best, o.best) AS best,
            coalesce(gone.boot_cs, o.boot_cs) AS boot_cs, steps AND gone.best IS NULL AS steps
        FROM left_over AS o LEFT JOIN gone USING ({_BOOT})
        WHERE coalesce(gone.best, o.best) > 0
    ),
"""
_TIMED = f"""
    WITH by_clock AS (
        SELECT {_BOOT}, {TRUST} AS trust,
            min(time_s::BIGINT * 100 - uptime_cs) AS least_cs,
            max(time_s::BIGINT * 100 - uptime_cs) AS most_cs,
            arg_min(time_s::BIGINT * 100 - uptime_cs, seq) AS boot_cs
        FROM report GROUP BY ALL
    ),
    booted AS (
        SELECT {_BOOT}, max(trust) AS best, arg_max(boot_cs, trust) AS boot_cs,
            arg_max(most_cs - least_cs, trust) > 500 AS steps
        FROM by_clock GROUP BY ALL HAVING best > 0
    ),
    stepped AS (
        SELECT report.*, coalesce(time_s < lag(time_s) OVER w, false) AS falls,
            coalesce(
                (time_s::BIGINT - lag(time_s) OVER w) * 100
                    - (uptime_cs::BIGINT - lag(uptime_cs) OVER w + 4294967296) % 4294967296,
                0
            ) AS step_cs
        FROM report JOIN booted USING ({_BOOT}) WHERE steps AND {TRUST} = best
        WINDOW w AS (PARTITION BY {_BOOT} ORDER BY seq)
    ),
    clocked AS (
        SELECT *, sum(CASE WHEN abs(step_cs) > 500 THEN step_cs ELSE 0 END)
            OVER (PARTITION BY {_BOOT} ORDER BY seq) AS ahead_cs
        FROM stepped
    ),
    held AS (
        SELECT {_BOOT}, bool_or(falls) AS falls,
            first(ahead_cs ORDER BY reports DESC, last_seq DESC) AS held_cs
        FROM (
            SELECT {_BOOT}, ahead_cs, bool_or(falls) AS falls, count(*) AS reports,
                max(seq) AS last_seq
            FROM clocked GROUP BY {_BOOT}, ahead_cs
        )
        GROUP BY {_BOOT}
    ),
    mended AS (
        SELECT {_BOOT}, seq, uptime_cs, (time_s::BIGINT * 100
            - CASE WHEN falls THEN ahead_cs - held_cs ELSE 0 END)::BIGINT AS at_cs
        FROM (SELECT * EXCLUDE (falls) FROM clocked) JOIN held USING ({_BOOT})
    ),
    anchor AS (
        SELECT {_BOOT}, best, boot_cs FROM booted WHERE NOT steps
        UNION ALL
        SELECT {_BOOT}, any_value(best), arg_min(at_cs - uptime_cs, seq)
        FROM mended JOIN booted USING ({_BOOT}) GROUP BY {_BOOT}
    )
    SELECT report.*, time_s::BIGINT AS at_s
    FROM report ANTI JOIN (FROM booted WHERE steps) USING ({_BOOT})
    WHERE time_s > 0 AND clock >= {table.CLOCK_NTP}
    UNION ALL
    SELECT report.*, time_s::BIGINT
    FROM report JOIN booted USING ({_BOOT})
    WHERE time_s > 0 AND clock < {table.CLOCK_NTP} AND NOT steps AND clock = best
    UNION ALL
    SELECT report.*, at_cs // 100
    FROM report JOIN (SELECT {_BOOT}, seq, at_cs FROM mended) USING ({_BOOT}, seq)
    UNION ALL
    SELECT report.*, (boot_cs + uptime_cs) // 100
    FROM report JOIN anchor USING ({_BOOT})
    WHERE (clock < {table.CLOCK_NTP} OR time_s = 0) AND {TRUST} < best
"""
