"""One probe for each layer, one file each.

A probe module has LAYER, NEEDS (the layer without which it is no use, 0 for none) and

    async def probe(port, config, evidence) -> Result

which ends by itself at its own deadline. A failing network is a Result, never an
exception: an exception means that the probe itself broke. A probe is on loan (`agent.loan`):
it keeps nothing in its module, and asks for the network `evidence.wlan`, which need not be the
board's own. Its sockets are bound by `port.bind_wlan`.
"""

from collections import namedtuple

# reason: a number from linkreport.table; measures: fields of the report by name, extension
# blocks (bytes) by the numbers of linkreport.block.
Result = namedtuple("Result", ("reason", "measures"))
