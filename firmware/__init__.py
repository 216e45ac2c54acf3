"""What runs on a board: imports nothing of the host's."""
