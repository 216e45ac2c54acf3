"""From the start of the interpreter to the REPL, in the order of the ESP32 port."""

import sys

from . import channel

_MODULES = (
    "time",
    "sys",
    "os",
    "micropython",
    "machine",
    "neopixel",
    "esp32",
    "socket",
    "network",
    "ntptime",
)


def begin(scope):
    """Mount the flash, run boot.py and main.py in `scope`, serve the REPL; never return."""
    state = channel.call("start")
    for name in _MODULES:
        module = __import__("shim." + name, None, None, (name,))
        sys.modules[name] = sys.modules["u" + name] = module

    from . import console, disk  # only now: they see the modules of an ESP32

    flash, wear = open(int(sys.argv[3]), "r+b"), open(int(sys.argv[4]), "rb")
    disk.mount(flash, wear, state["address"], state["size"], state["timing"])
    sys.path[:] = ["", ".frozen", "/lib"]
    sys.argv[:] = []
    for name in list(sys.modules):
        if name.startswith("shim"):
            del sys.modules[name]
    for name in list(scope):
        if not name.startswith("__") or name == "__file__":
            del scope[name]

    kind = state["repl"]
    try:
        anew = _boot(console, scope, kind)
    except KeyboardInterrupt:  # between two programs
        console.quiet()
        anew = False
    if not anew:
        kind = _serve(console, scope, kind)
    print("MPY: soft reboot")
    channel.call("soft-reset", repl=kind)
    sys.exit()


def _boot(console, scope, kind):
    """Run boot.py, then main.py unless a host waits in the raw REPL; True to start anew."""
    for name in ("boot.py", "main.py"):
        try:
            with open(name) as file:
                source = file.read()
        except OSError:
            continue
        done, error = console.execute(source, name, "exec", scope)
        source = None
        if done is None:
            return True
        if error:
            console.complain(error)
            return False
        if kind == "raw":
            return False
    return False


def _serve(console, scope, kind):
    """Serve one REPL after the other; return the kind to begin with after the soft reset."""
    channel.call("booted")
    while True:
        try:
            following = (console.raw if kind == "raw" else console.friendly)(scope)
        except KeyboardInterrupt:  # twice in quick succession
            console.quiet()
            continue
        if following is None:
            return kind
        kind = following
