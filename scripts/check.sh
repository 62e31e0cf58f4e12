#!/usr/bin/env bash
# Style, types and imports: ruff and mypy.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh dev
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
