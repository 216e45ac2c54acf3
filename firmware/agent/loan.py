"""Modules on loan: loaded for the time they are needed, then thrown out.

A board's heap holds the agent, but not all of its probes at once. What a loaned module leaves
behind (an object, a function) keeps the whole module in memory: it must leave only numbers,
bytes and texts.
"""

import gc
import sys

_IS_SMALL = sys.implementation.name == "micropython"


def borrow(name):
    """Import a module by its full name, like `agent.probes.radio`, and return it."""
    __import__(name)
    return sys.modules[name]


def use(name, verb, *arguments):
    """Borrow a module, call one of its functions, and give it back; return what that returned."""
    try:
        return getattr(borrow(name), verb)(*arguments)
    finally:
        give_back(name)


def give_back(*names):
    """Forget modules, so that their memory is free; on CPython they stay."""
    if _IS_SMALL:
        for name in names:
            package, _, leaf = name.rpartition(".")
            if sys.modules.pop(name, None) and hasattr(sys.modules.get(package), leaf):
                delattr(sys.modules[package], leaf)
        gc.collect()
