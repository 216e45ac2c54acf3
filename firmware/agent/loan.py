"""Modules on loan: loaded for the time they are needed, then thrown out.

A board's heap holds the agent, but not all of its probes at once. What a loaned module leaves
behind (an object, a function) keeps the whole module in memory: it must leave only numbers,
bytes and texts.
"""

import gc
import sys


def borrow(name):
    """Import a module by its full name, like `agent.probes.radio`, and return it."""
    __import__(name)
    return sys.modules[name]


def give_back(name):
    """Forget a module, so that its memory is free; on CPython it stays."""
    if sys.implementation.name != "micropython":
        return
    package, _, leaf = name.rpartition(".")
    if sys.modules.pop(name, None) and hasattr(sys.modules.get(package), leaf):
        delattr(sys.modules[package], leaf)
    gc.collect()
