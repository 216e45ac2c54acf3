"""What all tests need of the process that runs them."""

import signal

# A shell that starts `make test` in the background has SIGINT ignored, and children inherit that;
# the tests that press Ctrl-C on a child would wait in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)
