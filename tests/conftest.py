"""What all tests need of the process that runs them."""

import os
import signal

from hypothesis import HealthCheck, settings

# A shell that starts `make test` in the background has SIGINT ignored, and children inherit that;
# the tests that press Ctrl-C on a child would wait in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Whoever runs tests side by side names a width; what is printed for no terminal has none.
os.environ.pop("COLUMNS", None)

# How long an example takes says more of the machine than of the code.
settings.register_profile("machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("machine")
