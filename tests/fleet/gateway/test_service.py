"""Broker and collector each as a service of its own, as systemd starts them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.gateway.scene import RunningGateway, Scene, board_id

# systemd waits for that; nobody else may say it.
READY = b"READY=1"


@contextlib.contextmanager
def systemd(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(path))
        notified.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        notified.settimeout(30)
        yield notified


def hear(notified: socket.socket) -> tuple[bytes, int]:
    """Return what was said, and the process that said it."""
    text, ancillary, _, _ = notified.recvmsg(100, socket.CMSG_SPACE(12))
    return text, int.from_bytes(ancillary[0][2][:4], "little")


@pytest.fixture
def sockets(tmp_path: Path) -> Iterator[dict[str, socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield {
            part: stack.enter_context(systemd(tmp_path / part)) for part in ("broker", "collector")
        }


def service(scene: Scene, part: str, tmp_path: Path) -> RunningGateway:
    return RunningGateway(scene.folder, "--only", part, env={"NOTIFY_SOCKET": str(tmp_path / part)})


def test_two_services_are_one_gateway(
    scene: Scene, tmp_path: Path, sockets: dict[str, socket.socket]
) -> None:
    key = scene.city.enrol(board_id(1))
    scene.prepare()
    with service(scene, "broker", tmp_path) as broker:
        assert hear(sockets["broker"]) == (READY, broker.process.pid)
        with service(scene, "collector", tmp_path) as collector:
            assert hear(sockets["collector"]) == (READY, collector.process.pid)
            board = scene.board(1, key)
            board.make(3)
            board.drain()
            assert [seq for _, _, seq in collector.rows()] == [1, 2, 3]
            assert set(collector.state["pids"]) == {"supervisor", "collector"}
            with RunningGateway(scene.folder) as third:
                assert third.process.wait(30) == 3
                third.said("a gateway runs in")
            with RunningGateway(scene.folder, "--only", "broker") as second:
                assert second.process.wait(30) == 3
            scene.close()
            collector.process.send_signal(signal.SIGTERM)
            assert hear(sockets["collector"]) == (b"STOPPING=1", collector.process.pid)
            collector.process.wait(30)
            assert not collector.folder.state.exists()
            assert collector.folder.broker_state.exists()
    assert not broker.folder.broker_state.exists()


@pytest.mark.parametrize("part", ["broker", "collector"])
def test_what_dies_ends_its_service(scene: Scene, tmp_path: Path, part: str) -> None:
    scene.prepare()
    with (
        RunningGateway(scene.folder, "--only", "broker") as broker,
        contextlib.ExitStack() as stack,
    ):
        broker.said(" ready ")
        state, dying = broker.folder.broker_state, broker
        if part == "collector":
            dying = stack.enter_context(RunningGateway(scene.folder, "--only", "collector"))
            dying.ready()
            state = dying.folder.state
        os.kill(json.loads(state.read_text())["pids"][part], signal.SIGKILL)
        assert dying.process.wait(30) == 3
        dying.said(f"error: the {part} ended (SIGKILL)")


def test_the_broker_needs_neither_keys_nor_reports(scene: Scene) -> None:
    scene.prepare()
    (scene.folder / "boards.toml").unlink()
    with RunningGateway(scene.folder, "--only", "broker") as broker:
        broker.said(" ready ")
        assert not broker.folder.database.exists()
