# Take one package. Arguments: file name, SHA-256. stdin: its content.
umask 022
mkdir -p /opt/netzpuls/wheel
cd /opt/netzpuls/wheel
cat >"$1.part"
echo "$2  $1.part" | sha256sum --check --quiet - || {
  rm -f "$1.part"
  echo "error: $1 was damaged on the way" >&2
  echo "hint: run it again" >&2
  exit 1
}
mv -f "$1.part" "$1"
