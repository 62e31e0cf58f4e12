#!/usr/bin/env bash
# ResNet on CIFAR-10: dense weights (given, or trained first), pruned onto this device's step edges, fine-tuned, saved.
#   bash recipes/resnet_cifar10.sh --data cifar10:DIR --weights resnet20.pt           # ResNet-20
#   RUN=resnet56-cifar10 bash recipes/resnet_cifar10.sh --data cifar10:DIR --weights resnet56.pt --device cuda
#   bash recipes/resnet_cifar10.sh --data cifar10:DIR --weights resnet20.pt --short   # to see it run: about a minute on one core
set -euo pipefail
cd "$(dirname "$0")/.."
[ -n "${PYTHON:-}" ] || source scripts/setup.sh demo # PYTHON=python: the environment that is there
RUN="${RUN:-resnet20-cifar10}"
exec "$PYTHON" -m recipes.road "$RUN" --out "runs/$RUN" "$@"
