"""The REPL of an ESP32: friendly, raw and raw paste, as mpremote and people use it."""

import gc
import io
import sys

from . import channel

_CTRL_A, _CTRL_B, _CTRL_C, _CTRL_D, _CTRL_E = 1, 2, 3, 4, 5
_WINDOW = 128
_HISTORY = 20
_BANNER = b'%s; %s\r\nType "help()" for more information.\r\n'

_read = sys.stdin.buffer.read
write = sys.stdout.buffer.write
_history = []


def get():
    """Return the next byte from the host."""
    data = _read(1)
    if not data:
        sys.exit()  # the board is gone
    return data[0]


def quiet():
    """Let Ctrl-C be a byte like any other; a last interrupt on its way is swallowed."""
    while True:
        try:
            return channel.call("interrupt", char=-1)
        except KeyboardInterrupt:
            continue


def execute(source, name, kind, scope):
    """Run source text; return True, False after an exception, or None to start anew.

    The exception is returned as second item.
    """
    try:
        channel.call("interrupt", char=_CTRL_C)
        exec(compile(source, name, kind), scope)
        channel.call("interrupt", char=-1)
        return True, None
    except SystemExit:
        quiet()
        return None, None
    except BaseException as error:
        quiet()
        gc.collect()
        return False, error


def complain(error):
    """Print a traceback without the frames of this package."""
    text = io.BytesIO()  # a program's own text may be no UTF-8
    sys.print_exception(error, text)
    for line in text.getvalue().split(b"\n"):
        if line and b"/shim/" not in line:
            write(line + b"\r\n")


def raw(scope):
    """Serve the raw REPL; return None to start anew, else the next kind of REPL."""
    write(b"raw REPL; CTRL-B to exit\r\n")
    while True:
        write(b">")
        line = bytearray()
        while True:
            char = get()
            if char == _CTRL_A:
                if len(line) == 2 and line[0] == _CTRL_E:
                    line = _paste(line[1])
                    if line is not None:
                        break
                    line = bytearray()
                else:
                    write(b"raw REPL; CTRL-B to exit\r\n")
                    line = bytearray()
                write(b">")
            elif char == _CTRL_B:
                write(b"\r\n")
                return "friendly"
            elif char == _CTRL_C:
                line = bytearray()
            elif char == _CTRL_D:
                write(b"OK")
                if not line:
                    write(b"\r\n")
                    return None
                break
            else:
                line.append(char)
        source = bytes(line)
        line = None
        done, error = execute(source, "<stdin>", "exec", scope)
        if done is None:
            write(b"\x04\x04")
            return None
        write(b"\x04")
        if error:
            complain(error)
        write(b"\x04")
        source = error = None


def _paste(kind):
    """Receive source text by windows; None if it was broken off."""
    if kind != ord("A"):
        write(b"R\x00")
        return None
    write(b"R\x01")
    write(bytes((_WINDOW & 0xFF, _WINDOW >> 8, 1)))
    source = bytearray()
    left = _WINDOW
    while True:
        char = get()
        if char == _CTRL_D:
            write(b"\x04")
            return source
        if char == _CTRL_C:
            write(b"\x04\x04\x04")
            return None
        source.append(char)
        left -= 1
        if not left:
            write(b"\x01")
            left = _WINDOW


def friendly(scope):
    """Serve the friendly REPL; return None to start anew, else the next kind of REPL."""
    banner = _BANNER % (sys.version.split("; ")[-1].encode(), sys.implementation[2].encode())
    write(banner)
    while True:
        line = _edit(b">>> ", b"")
        if line == _CTRL_A:
            write(b"\r\n")
            return "raw"
        if line == _CTRL_B:
            write(b"\r\n" + banner)
        elif line == _CTRL_C:
            write(b"\r\n")
        elif line == _CTRL_D:
            write(b"\r\n")
            return None
        elif line == _CTRL_E:
            source = _block()
            if source is not None and _show(source, "exec", scope):
                return None
        else:
            write(b"\r\n")
            source = line
            while _is_open(source):
                more = _edit(b"... ", _indent(source))
                write(b"\r\n")
                if isinstance(more, int):
                    source = b""
                    break
                source += b"\n" + (more if more.strip() else b"")
            if source.strip() and _show(source, "single", scope):
                return None


def _show(source, kind, scope):
    done, error = execute(source, "<stdin>", kind, scope)
    if error:
        complain(error)
    return done is None


def _block():
    """Receive a block of text in paste mode; None if it was broken off."""
    write(b"\r\npaste mode; Ctrl-C to cancel, Ctrl-D to finish\r\n=== ")
    source = bytearray()
    while True:
        char = get()
        if char == _CTRL_C:
            write(b"\r\n")
            return None
        if char == _CTRL_D:
            write(b"\r\n")
            return bytes(source)
        source.append(10 if char == 13 else char)
        write(b"\r\n=== " if char == 13 else bytes((char,)))


def _edit(prompt, text):
    """Edit one line; return it, or the control code that ended it."""
    write(prompt + text)
    line = bytearray(text)
    at = len(line)
    past = len(_history)
    while True:
        char = get()
        old = at
        if char == _CTRL_C or (not line and char in (_CTRL_A, _CTRL_B, _CTRL_D, _CTRL_E)):
            return char
        if char == _CTRL_A:
            at = 0
        elif char == _CTRL_E:
            at = len(line)
        elif char == 13 or char == 10:
            if line.strip() and (not _history or _history[-1] != bytes(line)):
                _history.append(bytes(line))
                del _history[:-_HISTORY]
            return bytes(line)
        elif char in (8, 127):
            if at:
                indent = at % 4 or 4  # within an indent, a step of it
                at -= indent if not line[:at].strip() else 1
                line[at:old] = b""
                _redraw(line, old, at)
            continue
        elif char == _CTRL_D:
            if at < len(line):
                line[at : at + 1] = b""
                _redraw(line, old, at)
            continue
        elif char == 27:
            key = _key()
            if key == b"[A" or key == b"[B":
                past = max(0, min(len(_history), past + (1 if key == b"[B" else -1)))
                line = bytearray(_history[past] if past < len(_history) else b"")
                at = len(line)
                _redraw(line, old, at)
                continue
            if key == b"[C":
                at = min(len(line), at + 1)
            elif key == b"[D":
                at = max(0, at - 1)
            elif key in (b"[H", b"[1~", b"OH"):
                at = 0
            elif key in (b"[F", b"[4~", b"OF"):
                at = len(line)
            elif key == b"[3~" and at < len(line):
                line[at : at + 1] = b""
                _redraw(line, old, at)
                continue
        elif char == 9:
            line[at:at] = b"    "
            at += 4
            _redraw(line, old, at)
            continue
        elif char >= 32:
            line[at:at] = bytes((char,))
            at += 1
            if at == len(line):
                write(bytes((char,)))
            else:
                _redraw(line, old, at)
            continue
        if at < old:
            write(b"\x1b[%dD" % (old - at))
        elif at > old:
            write(b"\x1b[%dC" % (at - old))


def _key():
    """Return the rest of an escape sequence."""
    key = bytes((get(), get()))
    while key[-1:] < b"@":
        key += bytes((get(),))
    return key


def _redraw(line, old, at):
    out = b""
    if old:
        out = b"\x1b[%dD" % old
    out += b"\x1b[K" + bytes(line)
    if len(line) > at:
        out += b"\x1b[%dD" % (len(line) - at)
    write(out)


def _indent(source):
    last = source.split(b"\n")[-1]
    depth = len(last) - len(last.lstrip())
    return b" " * (depth + 4 if last.rstrip().endswith(b":") else depth)


_COMPOUND = (b"if", b"while", b"for", b"try", b"with", b"def", b"class", b"async")


def _is_open(source):
    """Tell whether the statement goes on in the next line."""
    if not source:
        return False
    quote = b""
    depth = 0
    at = 0
    while at < len(source):
        char = source[at : at + 1]
        triple = source[at : at + 3]
        if char == b"\\":
            at += 1
        elif quote:
            if source[at : at + len(quote)] == quote:
                at += len(quote) - 1
                quote = b""
        elif triple in (b'"""', b"'''"):
            quote = triple
            at += 2
        elif char in (b'"', b"'"):
            quote = char
        elif char in (b"(", b"[", b"{"):
            depth += 1
        elif char in (b")", b"]", b"}"):
            depth -= 1
        at += 1
    if len(quote) == 3 or (depth > 0 and not quote) or source[-1:] == b"\\":
        return True
    word = source.split(b" ")[0].split(b":")[0].split(b"(")[0]
    return (source[:1] == b"@" or word in _COMPOUND) and source[-1:] != b"\n"
