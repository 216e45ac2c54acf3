"""Runs before main.py; there is nothing to do yet."""
