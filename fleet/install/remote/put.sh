# Replace a file in one step. Arguments: path, mode, owner. stdin: its content.
umask 077
mkdir -p "$(dirname "$1")"
fresh=$1.netzpuls-new
cat >"$fresh"
chmod "$2" "$fresh"
chown "$3:" "$fresh"
sync "$fresh"
mv -f "$fresh" "$1"
sync "$(dirname "$1")"
