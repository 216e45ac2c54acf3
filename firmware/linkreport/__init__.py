"""What board and host agree on: wire format, states, layers, reasons and the verdict.

Pure and integer-only: runs on MicroPython and CPython alike and imports nothing but
the interpreter's own `struct`, `collections` and `hashlib`.
"""
