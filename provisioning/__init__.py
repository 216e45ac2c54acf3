"""The technician's desk: identity, image, flash, registry."""
