# Have the journal keep to its limits, now that they are there or gone.
systemctl restart systemd-journald.service
