#!/bin/sh
# Renew the lock files from pyproject.toml: every file of a version by its hash, no index address.
# Usage: make lock [UV=path/to/uv]
set -eu
uv=${1:-uv}
command -v "$uv" >/dev/null || {
  echo "error: uv is needed to renew the lock files and was not found as '$uv'" >&2
  echo "hint: pipx install uv, or make lock UV=path/to/uv" >&2
  exit 2
}
compile() {
  "$uv" --no-config pip compile --quiet --upgrade --universal --python-version 3.11 \
    --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header "$@"
}
cd "$(dirname "$0")/.."
compile pyproject.toml -o requirements/run.lock
compile pyproject.toml --group dev -c requirements/run.lock -o requirements/dev.lock
compile pyproject.toml --extra spark --extra clickhouse --group scale -c requirements/dev.lock \
  -o requirements/scale.lock
compile --group build -c requirements/dev.lock -o requirements/build.lock
compile --group stubs -o requirements/stubs.lock
compile --group gateway -c requirements/run.lock -o requirements/gateway.lock
