"""One probe for each layer, one file each.

A probe module has LAYER, NEEDS (the layer without which it is no use, 0 for none) and

    async def probe(port, config, evidence) -> Result

which ends by itself at its own deadline. A failing network is a Result, never an
exception: an exception means that the probe itself broke.
"""

from collections import namedtuple

# reason: a number from linkreport.table; measures: fields of the report, by name.
Result = namedtuple("Result", ("reason", "measures"))
