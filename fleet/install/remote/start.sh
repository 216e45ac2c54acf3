# Have services run as their units say now. Arguments: their names.
systemctl daemon-reload
systemctl enable --quiet "$@" 2>/dev/null
systemctl restart "$@" 2>/dev/null || {
  for service in "$@"; do
    systemctl is-active --quiet "$service" && continue
    said=$(journalctl --quiet --no-pager --output cat --lines 20 --unit "$service" |
      grep -E '^(error|hint):|error|ended' | tail -n 2 | tr '\n' ' ')
    echo "error: $service does not start: ${said:-it says nothing}" >&2
    echo "hint: see journalctl -u $service" >&2
  done
  exit 1
}
