# Choose the release that runs. Arguments: its name; the one to go back to, or "".
root=/opt/netzpuls
[ -e "$root/release/$1/.complete" ] || {
  echo "error: the release $1 is not whole here" >&2
  exit 1
}
point() { ln -sfn "release/$2" "$root/$1.new" && mv -fT "$root/$1.new" "$root/$1"; }
# First what to go back to: cut off between the two, the next run does both again.
[ -z "$2" ] || point previous "$2"
point current "$1"
ln -sfn "$root/current/bin/netzpuls" /usr/local/bin/netzpuls
sync -f "$root"
