# Let city hall log in. Arguments: user, data folder. stdin: one line for authorized_keys.
user=$1 folder=$2/.ssh
read -r line
install -d -o "$user" -g "$user" -m 0700 "$folder"
touch "$folder/authorized_keys"
cp "$folder/authorized_keys" "$folder/authorized_keys.netzpuls-new"
# A last line that does not end would swallow the new one.
[ -z "$(tail -c 1 "$folder/authorized_keys")" ] || echo >>"$folder/authorized_keys.netzpuls-new"
printf '%s\n' "$line" >>"$folder/authorized_keys.netzpuls-new"
chown "$user:" "$folder/authorized_keys.netzpuls-new"
chmod 0600 "$folder/authorized_keys.netzpuls-new"
sync "$folder/authorized_keys.netzpuls-new"
mv -f "$folder/authorized_keys.netzpuls-new" "$folder/authorized_keys"
