"""Runs after boot.py: the agent, until Ctrl-C."""

from agent.supervisor import run

run()
