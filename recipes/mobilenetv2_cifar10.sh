#!/usr/bin/env bash
# MobileNetV2 on CIFAR-10: trained here unless --weights are given, then pruned onto this device's step edges, fine-tuned, saved.
#   bash recipes/mobilenetv2_cifar10.sh --data cifar10:DIR --device cuda
#   bash recipes/mobilenetv2_cifar10.sh --data cifar10:DIR --short                    # to see it run: about seven minutes on one core
set -euo pipefail
cd "$(dirname "$0")/.."
[ -n "${PYTHON:-}" ] || source scripts/setup.sh demo # PYTHON=python: the environment that is there
exec "$PYTHON" -m recipes.road mobilenetv2-cifar10 --out runs/mobilenetv2-cifar10 "$@"
