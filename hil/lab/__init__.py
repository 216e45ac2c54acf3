"""The network lab: schools, their networks and an internet, in network namespaces.

`netzpuls lab up` and `netzpuls lab matrix` run it; docs/lab.md says what is real in it.
"""
