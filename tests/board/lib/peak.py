"""The soak's board, telling how much of its heap is left: micropython -m peak ROOT CLOCK UNIX_S.

Whenever a module on loan was loaded or is given back, and whenever something waits, it collects
garbage and says `LEFT bytes module …`: the free heap, and what is loaded.
"""

import gc
import sys

from agent import deadline, loan

borrow_module, give_back_modules, wait_ms = loan.borrow, loan.give_back, deadline.sleep_ms


def tell():
    gc.collect()
    print("LEFT", gc.mem_free(), *sys.modules)


def borrow(name):
    module = borrow_module(name)
    tell()
    return module


def use(name, verb, *arguments):
    try:
        return getattr(borrow(name), verb)(*arguments)
    finally:
        give_back(name)


def give_back(*names):
    tell()
    give_back_modules(*names)


def sleep_ms(duration):
    tell()
    return wait_ms(duration)


loan.borrow = borrow
loan.use = use
loan.give_back = give_back
deadline.sleep_ms = sleep_ms  # before anything takes it from there

__import__("soak")
