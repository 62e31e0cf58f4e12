#!/usr/bin/env bash
# Sets everything up, then does the main job on this device and shows the result. Arguments go to the recipe:
#   bash scripts/quickstart.sh --data cifar10:DIR --weights resnet20.pt
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh demo
# Training uses every core; threads that wait by spinning would fight with whatever else runs here.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
exec "$PYTHON" -m recipes.quickstart "$@"
