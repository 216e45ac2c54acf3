# Install Debian's packages. Arguments: their names.
export DEBIAN_FRONTEND=noninteractive
case " $* " in
  # Before it is there: Debian starts its own broker, with its own rules, as soon as it is.
  *' mosquitto '*) systemctl mask --quiet mosquitto.service 2>/dev/null ;;
esac
# Of an installation that was cut off.
dpkg --configure -a >/dev/null
get() { apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 "$@" >/dev/null; }
get "$@" 2>/dev/null || { apt-get update -qq >/dev/null && get "$@"; } || {
  echo "error: apt could not install $*" >&2
  echo "hint: see what it says: apt-get update && apt-get install $*" >&2
  exit 1
}
