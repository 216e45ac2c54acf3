"""The IT staff's tool: inventory, gateway, collect, store, ledger."""
