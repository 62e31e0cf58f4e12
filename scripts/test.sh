#!/usr/bin/env bash
# Sets everything up if needed, then runs the checks and the tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh dev
bash scripts/check.sh
# One thread a process: the tests run side by side, and timings in them are compared by ratio only.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# Property tests draw the same examples every time: a verdict must not depend on luck (tests/conftest.py).
export CI="${CI:-1}"
exec "$PYTHON" -m pytest -n 2 --dist loadfile "$@"
