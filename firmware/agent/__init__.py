"""The agent on the board: probes, spool, uplink and the supervisor that keeps them going."""

VERSION = "0.1.0"
