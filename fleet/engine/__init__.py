"""Engines that find what boards said from all reports: another machine's, or a cluster's.

    netzpuls fleet uptime --engine spark://HOST:PORT

`duckdb` and `chdb` run within this process, `spark://` on a cluster whose workers see the city's
store under the same path. All run the same expressions (`fleet.engine.expression`). What comes
back is what each board said and when, some twenty intervals a board and month; calendars, lines
and promises are laid over it here, as over the intervals that the store keeps.

Source: docs/scale.md.
"""

# ruff: noqa: S608 (the SQL is made of this file's own constants and of quoted paths)

from __future__ import annotations

import contextlib
import importlib
import os
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from fleet import tool
from fleet.errors import NetzpulsError, UsageError
from fleet.period import Period
from fleet.store import Store, part
from fleet.text import printable

_SPARK = re.compile(r"spark://([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})")
_GLOB = re.compile(r"([*?{}\[\]\\])")
_KNOWN = "duckdb, chdb or spark://HOST:PORT"
_EXTRA = {"duckdb": "spark", "chdb": "clickhouse", "spark": "spark"}
_CONNECT_TIMEOUT_S = 5.0
# A cluster that gives no core for so long has none.
_PATIENCE_S = 90.0


class EngineError(NetzpulsError):
    """An engine is not there, or could not do what was asked."""

    code = "engine"


def check(url: str) -> str:
    """Return the kind of engine that a URL names.

    Raises: UsageError: none.
    """
    if url in ("duckdb", "chdb"):
        return url
    if _SPARK.fullmatch(url):
        return "spark"
    raise UsageError(f"there is no engine {printable(url, 80)}", hint=f"it is one of {_KNOWN}")


def ask(url: str, store: Store, connection: duckdb.DuckDBPyConnection, period: Period) -> str:
    """Let an engine find what boards said from the reports of a store.

    Args:
        url: of the engine.
        store: where the reports are; the engine must see its folder under the same path.
        connection: to the store, open for reading.
        period: of when.

    Returns: SQL for it, as `fleet.ledger.KEPT` is.
    Raises: UsageError: there is no such engine. EngineError: what it needs is not installed, it
        cannot be reached, or it failed. StoreError: there are no reports.
    """
    kind = check(url)
    with contextlib.ExitStack() as stack:
        expression = _module("fleet.engine.expression", kind)
        folder = stack.enter_context(_folder(store))
        files = _files(store, connection, folder)
        try:
            with _OPEN[kind](url) as engine:
                found = _found(expression, engine, files, folder, period)
        except NetzpulsError:
            raise
        except Exception as error:  # each engine has its own family of them
            said = next((line for line in str(error).splitlines() if line.strip()), "no word")
            raise EngineError(
                f"{url} could not recompute the ledger: {printable(said, 300)}",
                hint=f"every worker must see {store.folder} under this path; netzpuls fleet uptime "
                "without --engine needs none",
            ) from None
    connection.register("told", found)
    edges = "start_s::BIGINT AS start_s, end_s::BIGINT AS end_s"
    return f"SELECT device, {edges}, {expression.facts()} FROM told"


@dataclass(frozen=True)
class Engine:
    """An engine at work: its Ibis backend, and how it sees Parquet files as a table."""

    backend: Any
    read: Callable[[str, list[Path]], Any]


def _found(expression: Any, engine: Engine, files: list[Path], folder: Path, period: Period) -> Any:
    """Return an Arrow table of (device, start_s, end_s, fact)."""

    def given(name: str, rows: Any) -> Any:
        path = folder / f"{name}.parquet"
        importlib.import_module("pyarrow.parquet").write_table(rows, path)
        return engine.read(name, [path])

    rows = expression.said(engine.read("report", files))
    boots = engine.backend.to_pyarrow(expression.booted(rows))
    stepping = boots.filter([steps == 1 for steps in boots["steps"].to_pylist()])
    fallen = None
    if len(stepping):
        asked = expression.falling(rows, given("stepping", stepping))
        fallen = engine.backend.to_pyarrow(asked)
    return engine.backend.to_pyarrow(
        expression.intervals(
            rows,
            given("booted", boots),
            given("fallen", fallen) if fallen is not None and len(fallen) else None,
            period,
        )
    )


@contextlib.contextmanager
def _folder(store: Store) -> Iterator[Path]:
    """Make a folder for what only this run needs, where the engine sees it."""
    where = store.folder.absolute()
    try:
        with tempfile.TemporaryDirectory(prefix="engine-", dir=where) as name:
            folder = Path(name)
            folder.chmod(0o755)  # a cluster's workers may be other users
            yield folder
    except OSError as error:
        raise EngineError(
            f"cannot write to {where}: {error.strerror}",
            hint="an engine gets what is in no day file yet through a file there",
        ) from None


def _files(store: Store, connection: duckdb.DuckDBPyConnection, folder: Path) -> list[Path]:
    """Return files with all reports: those of the days, and one of what is in none yet."""
    shelf = part.Shelf(connection, store.folder)
    recent = folder / "recent.parquet"
    shelf.copy_recent(recent)
    return [*(path.absolute() for path in shelf.paths()), recent]


def _module(name: str, kind: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise EngineError(
            f"the Python package {error.name} is not installed, which --engine needs",
            hint=f"pip install 'netzpuls[{_EXTRA[kind]}]'; in a checkout: make scale",
        ) from None


# -- engines ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _duckdb(_: str) -> Iterator[Engine]:
    backend = _module("ibis", "duckdb").duckdb.connect()

    def read(name: str, files: list[Path]) -> Any:
        return backend.read_parquet([str(path) for path in files], table_name=name)

    try:
        yield Engine(backend, read)
    finally:
        backend.disconnect()


@contextlib.contextmanager
def _chdb(_: str) -> Iterator[Engine]:
    ibis = _module("ibis", "chdb")
    _module("chdb", "chdb")
    expression = _module("fleet.engine.expression", "chdb")
    client = _module("clickhouse_connect", "chdb").get_client(interface="chdb")
    backend = ibis.clickhouse.from_connection(client)

    def read(name: str, files: list[Path]) -> Any:
        columns = "*" if len(files) == 1 else ", ".join(expression.COLUMNS)
        rows = " UNION ALL ".join(
            f"SELECT {columns} FROM file('{_quoted(path)}', Parquet)" for path in files
        )
        client.command(f"CREATE OR REPLACE VIEW {name} AS {rows}")
        return backend.table(name)

    try:
        yield Engine(backend, read)
    finally:
        client.close()


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace("'", "\\'")


@contextlib.contextmanager
def _spark(url: str) -> Iterator[Engine]:
    ibis = _module("ibis", "spark")
    sql = _module("pyspark.sql", "spark")
    matched = _SPARK.fullmatch(url)
    host, port = (matched[1].strip("[]"), int(matched[2])) if matched else ("", 0)
    try:
        with socket.create_connection((host, port), _CONNECT_TIMEOUT_S) as line:
            here = line.getsockname()[0]
    except (OSError, OverflowError) as error:
        raise EngineError(
            f"no Spark master answers at {url}: {getattr(error, 'strerror', None) or error}",
            hint="its own page, at port 8080 of its host, names its address",
        ) from None
    os.environ.setdefault("JAVA_HOME", str(tool.find(tool.JAVA).resolve().parent.parent))
    # Workers call back: to the address from which this machine reaches the master.
    os.environ.setdefault("SPARK_LOCAL_IP", here)
    settings = {
        "spark.driver.host": here,
        "spark.driver.bindAddress": here,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
    }
    builder = sql.SparkSession.builder.master(url).appName("netzpuls")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()

    def read(name: str, files: list[Path]) -> Any:
        paths = ("file://" + _GLOB.sub(r"\\\1", str(path)) for path in files)
        session.read.parquet(*paths).createOrReplaceTempView(name)
        return backend.table(name)

    try:
        session.sparkContext.setLogLevel("ERROR")
        _expect_workers(url, session)
        backend = ibis.pyspark.connect(session)
        yield Engine(backend, read)
    finally:
        session.stop()


def _expect_workers(url: str, session: Any) -> None:
    """Wait for a worker to do something; without any Spark would wait for ever."""
    alarm = threading.Timer(_PATIENCE_S, session.sparkContext.cancelAllJobs)
    alarm.start()
    try:
        session.range(1).count()
    except Exception:
        if alarm.is_alive():
            raise
        raise EngineError(
            f"{url} gave no core within {_PATIENCE_S:.0f} s",
            hint="see on the master's page whether workers are there and free",
        ) from None
    finally:
        alarm.cancel()


_OPEN: dict[str, Callable[[str], contextlib.AbstractContextManager[Engine]]] = {
    "duckdb": _duckdb,
    "chdb": _chdb,
    "spark": _spark,
}
