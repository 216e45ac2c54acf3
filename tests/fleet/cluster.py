"""A Spark cluster on loopback from PyPI's pyspark: one master and two workers."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator
from importlib import util
from pathlib import Path

from fleet import tool

_START_S = 300.0
_ADDRESS = re.compile(r"Starting Spark master at (spark://127\.0\.0\.1:\d+)")
_WORKER = "Registering worker"


class Cluster:
    """What runs: its address and its processes.

    Attributes:
        master: for `--engine`.
        processes: the master's first.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        spec = util.find_spec("pyspark")
        assert spec is not None
        assert spec.origin is not None
        self._jars = Path(spec.origin).parent / "jars"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.master = ""

    def start(self, workers: int = 2) -> None:
        """Start all and wait until the workers are known to the master."""
        log = self._run("master", "master.Master", "--host", "127.0.0.1", "--port", "0")
        self.master = _until(log, _ADDRESS)[1]
        for number in range(workers):
            self._run(
                f"worker-{number}", "worker.Worker", "--host", "127.0.0.1", "--cores", "1",
                "--memory", "1g", "--work-dir", str(self._folder / "work"), self.master,
            )  # fmt: skip
        _until(log, re.compile(f"(?s)(?:{_WORKER}.*){{{workers}}}"))

    def stop(self) -> None:
        """End what was started, by its id; executors end with their workers."""
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _run(self, name: str, program: str, *arguments: str) -> Path:
        log = self._folder / f"{name}.log"
        java = tool.find(tool.JAVA).resolve()
        environment = os.environ | {
            "JAVA_HOME": str(java.parent.parent),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_PUBLIC_DNS": "127.0.0.1",
            "SPARK_HOME": str(self._jars.parent),
            "SPARK_SCALA_VERSION": "2.13",
        }
        with log.open("wb") as stream:
            self.processes.append(
                subprocess.Popen(
                    [
                        java, "-cp", f"{self._jars}/*", "-Xmx512m",
                        f"org.apache.spark.deploy.{program}", "--webui-port", "0", *arguments,
                    ],
                    stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=environment,
                )
            )  # fmt: skip
        return log


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run a cluster as long as the block."""
    found = Cluster(folder)
    try:
        found.start()
        yield found
    finally:
        found.stop()


def _until(log: Path, pattern: re.Pattern[str]) -> re.Match[str]:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        matched = pattern.search(log.read_text(errors="replace"))
        if matched:
            return matched
        time.sleep(0.2)
    raise TimeoutError(f"{log.name}: {log.read_text(errors='replace')[-2000:]}")
