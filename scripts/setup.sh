#!/usr/bin/env bash
# Creates .venv and installs tailprune into it, once: `source scripts/setup.sh EXTRA` leaves $PYTHON set.
# Re-installs only when setup.py changed.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
extra="${1:-demo}"
PYTHON="$root/.venv/bin/python"
stamp="$root/.venv/.tailprune-$extra-$(cksum <"$root/setup.py" | cut -d' ' -f1)"
if [ ! -x "$PYTHON" ]; then
  found=""
  for candidate in "${TAILPRUNE_PYTHON:-python3}" python3.13 python3.12 python3.11 python3.10; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      found="$candidate"
      break
    fi
  done
  if [ -z "$found" ]; then
    echo "tailprune needs Python 3.10 to 3.13; none was found. Set TAILPRUNE_PYTHON to one." >&2
    exit 1
  fi
  echo "Creating .venv with $found" >&2
  "$found" -m venv "$root/.venv"
fi
if [ ! -e "$stamp" ]; then
  echo "Installing tailprune[$extra] and what it needs (torch is large; minutes, once)" >&2
  "$PYTHON" -m pip install --quiet --upgrade pip
  "$PYTHON" -m pip install --quiet -e "$root[$extra]"
  touch "$stamp"
fi
