"""Measurements of this machine: each module prints one JSON document; `make bench` runs all."""
