# Remove what no release needs. Arguments: releases to keep, "--", packages to keep.
root=/opt/netzpuls
keep=" "
while [ "$1" != -- ]; do
  keep="$keep$1 "
  shift
done
shift
wheels=" $* "
for each in "$root"/release/*; do
  [ -d "$each" ] || continue
  case $keep in *" $(basename "$each") "*) ;; *) rm -rf "$each" ;; esac
done
for each in "$root"/wheel/*; do
  [ -f "$each" ] || continue
  case $wheels in *" $(basename "$each") "*) ;; *) rm -f "$each" ;; esac
done
