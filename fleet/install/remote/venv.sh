# Make a release's virtual environment from the packages that are here. Argument: its name.
# stdin: requirements, each with its hash.
umask 022
venv=/opt/netzpuls/release/$1
rm -rf "$venv"
mkdir -p /opt/netzpuls/release
python3 -m venv "$venv"
cat >"$venv/requirements.txt"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-index --no-deps --require-hashes \
  --find-links /opt/netzpuls/wheel --requirement "$venv/requirements.txt" >&2
"$venv/bin/netzpuls" --version >/dev/null
# Whole on disk before it is said to be.
sync -f "$venv"
: >"$venv/.complete"
sync "$venv/.complete"
