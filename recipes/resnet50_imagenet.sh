#!/usr/bin/env bash
# ResNet-50 on ImageNet (a tree with train/CLASS/* and val/CLASS/*) from torchvision's weights, on all GPUs of this machine.
#   bash recipes/resnet50_imagenet.sh --data imagenet:DIR
#   GPUS=1 bash recipes/resnet50_imagenet.sh --data imagenet:DIR --weights my.safetensors --epochs 30
set -euo pipefail
cd "$(dirname "$0")/.."
[ -n "${PYTHON:-}" ] || source scripts/setup.sh demo # PYTHON=python: the environment that is there
GPUS="${GPUS:-$("$PYTHON" -c 'import torch; print(max(torch.cuda.device_count(), 1))')}"
exec "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "$GPUS" -m recipes.road resnet50-imagenet \
    --device cuda --weights torchvision --out runs/resnet50-imagenet "$@"
