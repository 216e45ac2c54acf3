# Take Netzpuls off this host. Arguments: user, data folder, "keep" or "erase".
user=$1 data=$2
for service in netzpuls-collector netzpuls-broker; do
  systemctl disable --quiet --now "$service.service" 2>/dev/null || true
  rm -f "/etc/systemd/system/$service.service"
  rm -rf "/etc/systemd/system/$service.service.d"
done
systemctl daemon-reload
systemctl reset-failed netzpuls-collector.service netzpuls-broker.service 2>/dev/null || true
if [ -f /etc/systemd/journald.conf.d/netzpuls.conf ]; then
  rm -f /etc/systemd/journald.conf.d/netzpuls.conf
  systemctl restart systemd-journald.service
fi
[ "$(readlink /usr/local/bin/netzpuls 2>/dev/null)" != /opt/netzpuls/current/bin/netzpuls ] ||
  rm -f /usr/local/bin/netzpuls
rm -rf /opt/netzpuls
# Masked by the installation, for the packages that it brought.
[ "$(readlink /etc/systemd/system/mosquitto.service 2>/dev/null)" != /dev/null ] ||
  systemctl unmask --quiet mosquitto.service
if [ "$3" = erase ]; then
  pkill -KILL -u "$user" 2>/dev/null || true
  ! id "$user" >/dev/null 2>&1 || userdel "$user" 2>/dev/null
  rm -rf "$data"
fi
