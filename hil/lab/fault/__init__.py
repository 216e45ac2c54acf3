"""The catalogue of faults, by layer: one short entry each."""

from hil.lab.fault import (
    addressing,
    air,
    device,
    gateway,
    internet,
    pair,
    portal,
    resolver,
    service,
    uplink,
)
from hil.lab.fault.definition import BOTH, Expected, Fault, Scene, catalogue, find

__all__ = [
    "BOTH",
    "Expected",
    "Fault",
    "Scene",
    "addressing",
    "air",
    "catalogue",
    "device",
    "find",
    "gateway",
    "internet",
    "pair",
    "portal",
    "resolver",
    "service",
    "uplink",
]
