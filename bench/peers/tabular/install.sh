#!/usr/bin/env bash
# Makes a virtual environment for each peer, of pinned versions, and prints its
# interpreter: install.sh [CACHE]. One that is there and of these versions is kept.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/mlc/peers}
for peer in pandera expectations lightgbm; do
  venv=$cache/$peer
  if ! cmp -s "$here/requirements-$peer.txt" "$venv/installed.txt"; then
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements-$peer.txt" >&2
    cp "$here/requirements-$peer.txt" "$venv/installed.txt"
  fi
  echo "$peer $venv/bin/python"
done
