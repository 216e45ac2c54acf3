"""The lab's control socket: faults, healing, status and captures from another terminal.

A unix-domain socket in the lab's folder, JSON lines as hil.board.control speaks them:

    {"op": "fault", "name": "dns-dead", "site": "goethe-schule", "board": null}
    {"op": "heal", "name": null, "site": null}
    {"op": "status"}
    {"op": "capture", "board": "np-240ac4200104", "file": "/tmp/board.pcap"}
    {"op": "capture-end", "board": "np-240ac4200104"}
    {"op": "down"}
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from fleet import file
from fleet.errors import NetzpulsError
from hil.lab.error import FaultError, LabError
from hil.lab.laboratory import Active, Laboratory

SOCKET = "lab.control"
_HINT = "talk to the lab by: netzpuls lab fault, heal, status, capture, down"
_LINE_LIMIT_BYTES = 65536
_ANSWER_S = 60.0  # a gateway may have to start
_END_S = 30.0
_POLL_S = 0.05


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    answer: Callable[[dict[str, Any]], dict[str, Any]]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away is no trouble of the lab."""


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        line = self.rfile.readline(_LINE_LIMIT_BYTES)
        try:
            answer = {"ok": True} | self.server.answer(json.loads(line))
        except NetzpulsError as error:
            answer = _refusal(error)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            answer = _refusal(FaultError(f"not a request: {error}", hint=_HINT))
        except OSError as error:
            said = f"the lab's machine refuses: {error.strerror or error}"
            answer = _refusal(LabError(said, hint="see its disk and limits (df, ulimit -a)"))
        self.wfile.write(json.dumps(answer).encode() + b"\n")


def _refusal(error: NetzpulsError) -> dict[str, Any]:
    return error.document() | {"exit_code": error.exit_code}


class LabControl:
    """Serves requests from entering to leaving.

    Args:
        end: called when somebody wants the lab to end.
        on_event: told what was broken and healed, and in which style.
    """

    def __init__(
        self, lab: Laboratory, end: Callable[[], None], on_event: Callable[[str, str], None]
    ) -> None:
        self._lab = lab
        self._end = end
        self._on_event = on_event
        path = lab.folder / SOCKET
        self._server = _Server(str(path), _Handler)
        path.chmod(0o600)
        self._server.answer = self._answer
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="control", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        (self._lab.folder / SOCKET).unlink(missing_ok=True)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        lab, operation = self._lab, request["op"]
        if operation == "fault":
            made = lab.break_(request["name"], request["site"], request["board"])
            self._on_event(f"{made.fault.name} at {made.scene.site.id}", "bold magenta")
            return {"made": [_told(made)]}
        if operation == "heal":
            healed = lab.heal(request["name"], request["site"])
            for each in healed:
                self._on_event(f"{each.fault.name} at {each.scene.site.id} is healed", "magenta")
            return {"healed": [_told(each) for each in healed]}
        if operation == "down":
            self._end()
            return {}
        if operation == "status":
            return {"lab": lab.document()}
        if operation == "capture":
            lab.board(request["board"]).capture(Path(request["file"]))
            return {}
        if operation == "capture-end":
            return {"frames": lab.board(request["board"]).end_capture()}
        raise FaultError(f"the lab knows no {operation!r}", hint=_HINT)


def _told(active: Active) -> dict[str, Any]:
    return {
        "fault": active.fault.name,
        "site": active.scene.site.id,
        "boards": [board.id for board in active.scene.boards],
        "expected": str(active.fault.expected),
    }


class LabClient:
    """Steers the lab in a folder from another process; each call is one request.

    Raises: LabError: no lab is there. NetzpulsError: it refused, as its code says.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    def call(self, operation: str, **request: Any) -> dict[str, Any]:
        """Send one request; return its answer."""
        document = json.dumps({"op": operation} | request).encode() + b"\n"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
                channel.settimeout(_ANSWER_S)
                channel.connect(str(self._folder / SOCKET))
                channel.sendall(document)
                with channel.makefile("rb") as answers:
                    answer = dict(json.loads(answers.readline()))
        except TimeoutError:
            raise LabError(
                f"the lab in {self._folder} does not answer", hint="is it stopped? try fg"
            ) from None
        except (OSError, ValueError) as error:
            if self._is_alive():
                raise LabError(
                    f"the lab in {self._folder} takes no commands now: it is being built, "
                    "it ends, or it makes a matrix",
                    hint="try again in some seconds, or end it by Ctrl-C where it was started",
                ) from error
            raise LabError(
                f"no lab is running in {self._folder}",
                hint="start one in another terminal: netzpuls lab up; or name its folder: --dir",
            ) from error
        if not answer.pop("ok"):
            said = answer["error"]
            refusal = NetzpulsError(said["message"], hint=said["hint"])
            refusal.code, refusal.exit_code = said["code"], answer["exit_code"]
            raise refusal
        return answer

    def end(self) -> None:
        """End the lab; returns when its folder is free for the next one.

        Raises: LabError: it does not end.
        """
        self.call("down")
        deadline = time.monotonic() + _END_S
        while self._is_alive():
            if time.monotonic() > deadline:
                raise LabError(
                    f"the lab in {self._folder} has not ended within {_END_S:g} s",
                    hint="end it by Ctrl-C where it was started",
                )
            time.sleep(_POLL_S)

    def _is_alive(self) -> bool:
        """Tell whether a lab holds the folder."""
        try:
            with file.locked(self._folder, wait=False):
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False
