"""A site's gateway: the broker that boards report to, and the collector that keeps reports.

Everything lies in one folder, made by `netzpuls gateway prepare` at city hall:

    gateway.toml   settings; people may change them
    boards.toml    report keys of the boards here, mode 0600
    tls/           certificates and keys of broker and collector
    reports.db     SQLite: what boards reported
    broker/        what mosquitto needs, made anew at each start
    state.json     while it runs: process ids and port
"""
