"""Real Debian hosts with systemd and SSH, for tests: docs/host-bed.md."""
