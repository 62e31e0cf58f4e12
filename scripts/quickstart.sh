#!/usr/bin/env bash
# Sets everything up, then does the main job on this device and shows the result. Arguments go to the recipe:
#   bash scripts/quickstart.sh --data cifar10:DIR --weights resnet20.pt
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh demo
exec "$PYTHON" -m recipes.quickstart "$@"
