# What is on this host? Only reads. Arguments: user, data folder, then files whose SHA-256 is wanted.
# Answers with lines: name, tab, value.
user=$1 data=$2
shift 2
root=/opt/netzpuls
say() { printf '%s\t%s\n' "$1" "$2"; }

. /etc/os-release
say distribution "${ID:-}"
say release "${VERSION_ID:-}"
say title "${PRETTY_NAME:-}"
say architecture "$(dpkg --print-architecture 2>/dev/null || uname -m)"
say init "$(cat /proc/1/comm)"
say time "$(date +%s)"
say free_kib "$(df -Pk /opt | awk 'NR == 2 { print $4 }')"
for package in mosquitto python3-venv; do
  case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) in
    ii*) say package "$package" ;;
  esac
done
say foreign_service "$(systemctl is-enabled mosquitto.service 2>/dev/null || true)"
if id "$user" >/dev/null 2>&1; then
  say user "$(getent passwd "$user" | cut -d: -f6)"
fi
[ ! -d "$data" ] || say data "$(stat -c '%U %a' "$data")"
[ ! -d "$data/tls" ] || say tls "$(stat -c '%U %a' "$data/tls")"
for link in current previous; do
  [ ! -L "$root/$link" ] || say "$link" "$(basename "$(readlink "$root/$link")")"
done
[ ! -L /usr/local/bin/netzpuls ] || say command "$(readlink /usr/local/bin/netzpuls)"
for each in "$root"/release/*; do
  [ ! -d "$each" ] || say venv "$(basename "$each") $([ -e "$each/.complete" ] && echo complete || echo begun)"
done
for each in "$root"/wheel/*.whl; do
  [ ! -f "$each" ] || say wheel "$(sha256sum "$each" | cut -d' ' -f1) $(basename "$each")"
done
for each in "$@"; do
  [ ! -f "$each" ] || say file "$(sha256sum "$each" | cut -d' ' -f1) $(stat -c '%U %a' "$each") $each"
done
[ ! -f "$data/.ssh/authorized_keys" ] || while read -r line; do
  say authorized "$line"
done <"$data/.ssh/authorized_keys"
for service in netzpuls-broker netzpuls-collector; do
  enabled=$(systemctl is-enabled "$service.service" 2>/dev/null || true)
  active=$(systemctl is-active "$service.service" 2>/dev/null || true)
  pid=$(systemctl show -p MainPID --value "$service.service" 2>/dev/null || echo 0)
  running=- unit=-
  if [ "${pid:-0}" -gt 0 ]; then
    running=$(tr '\0' '\n' <"/proc/$pid/cmdline" | sed -n 's|^/opt/netzpuls/release/\([^/]*\)/.*|\1|p' | head -n 1)
    unit=$(tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^NETZPULS_UNIT=//p' | head -n 1)
  fi
  say service "$service.service ${enabled:--} ${active:--} ${running:--} ${unit:--}"
done
reload=$(systemctl show -p NeedDaemonReload --value netzpuls-broker.service netzpuls-collector.service 2>/dev/null | grep -c yes || true)
say reload "$reload"
say end survey
