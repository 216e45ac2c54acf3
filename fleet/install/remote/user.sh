# Make the gateway's user and folders. Arguments: user, data folder.
user=$1 data=$2
# "*": no password fits, and yet the account is not locked, so that keys do.
id "$user" >/dev/null 2>&1 ||
  useradd --system --user-group --home-dir "$data" --shell /bin/sh --password '*' "$user"
install -d -o "$user" -g "$user" -m 0750 "$data"
install -d -o "$user" -g "$user" -m 0700 "$data/tls" "$data/broker"
