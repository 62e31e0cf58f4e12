"""The out-lines of real layers that filling is judged on, on the CPU that is here: swept in full twice, filled at two granules.

    python -m scripts.fill_lines first WORK     # then second, live and live_coarse_1 to _3; each goes on where it was stopped

Writes WORK/NAME.db and, once complete, benchmarks/cpu/fill_NAME.csv.gz with every raw time. Nothing else should run
meanwhile. `scripts/bench_fill.py` reads the results.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import tailprune
from scripts.fill_cells import GRANULE
from scripts.record import ROOT
from tailprune.core.graph import ChannelGroup, Layer, WidthExpr
from tailprune.filling import group_line, measure_missing
from tailprune.tables import export_csv

#: (layer, in channels, out channels, kernel, stride, rows of the input) of torchvision's models at batch 1 and 224x224; each is
#: swept along out at this in-width and at half of it.
LAYERS = (
    ("resnet18 layer1.0.conv1", 64, 64, 3, 1, 56),
    ("resnet18 layer2.0.conv1", 64, 128, 3, 2, 56),
    ("resnet18 layer2.1.conv1", 128, 128, 3, 1, 28),
    ("resnet18 layer3.1.conv1", 256, 256, 3, 1, 14),
    ("resnet18 layer4.1.conv1", 512, 512, 3, 1, 7),
    ("resnet50 layer1.0.conv3", 64, 256, 1, 1, 56),
    ("resnet50 layer2.0.conv1", 256, 128, 1, 1, 56),
    ("resnet50 layer2.1.conv1", 512, 128, 1, 1, 28),
    ("resnet50 layer3.1.conv1", 1024, 256, 1, 1, 14),
    ("resnet50 layer3.1.conv3", 256, 1024, 1, 1, 14),
    ("mobilenet_v2 features.2.conv.0.0", 16, 96, 1, 1, 112),
    ("mobilenet_v2 features.8.conv.0.0", 64, 384, 1, 1, 14),
    ("mobilenet_v2 features.11.conv.2", 384, 96, 1, 1, 14),
    ("mobilenet_v2 features.15.conv.2", 960, 160, 1, 1, 7),
)
#: Widths of a line at most: wider layers are swept at every 2nd, 4th or 8th channel.
MOST_WIDTHS = 192
#: A filling meets the machine as it is in that minute: one riser more or less in 200 is its luck, so three are taken.
LIVE_COARSE = ("live_coarse_1", "live_coarse_2", "live_coarse_3")
NAMES = ("first", "second", "live", *LIVE_COARSE)


def lines(granule: int | None = None) -> tailprune.ModelGraph:
    """One layer and one channel group per line; the granule is the sweep's own unless given."""
    layers, groups = [], []
    for name, ins, outs, kernel, stride, rows in LAYERS:
        finest = 1
        while outs > MOST_WIDTHS * finest:
            finest *= 2
        step = max(finest, granule or 1)
        for in_channels in (ins, ins // 2):
            line = f"{name} from {in_channels}"
            shape = tailprune.LayerShape(
                op="conv", batch=1, in_channels=in_channels, out_channels=outs, in_hw=(rows, rows),
                kernel_hw=(kernel, kernel), stride_hw=(stride, stride), padding_hw=(kernel // 2, kernel // 2), epilogue=("bias", "relu"),
            )  # fmt: skip
            width = WidthExpr(terms=((line, 1),))
            layers.append(Layer(name=line, shape=shape, in_expr=WidthExpr(constant=in_channels), out_expr=width))
            groups.append(ChannelGroup(id=line, width=outs, granule=step, min_width=step))
    return tailprune.ModelGraph(
        model="lines of real layers", layers=tuple(layers), groups=tuple(groups), input_shape=(1, 3, 224, 224)
    )


def main(name: str, work: Path) -> None:
    if name not in NAMES:
        raise SystemExit(f"Unknown sweep {name!r}; allowed: {', '.join(NAMES)}.")
    graph = lines(GRANULE if name in LIVE_COARSE else None)
    timer = tailprune.DeviceTimer("cpu")
    started = time.monotonic()

    def progress(done: int, total: int, what: str) -> None:
        if done % 200 == 0:
            print(f"{done} of {total}, {time.monotonic() - started:.0f} s", flush=True)

    with tailprune.LatencyTable.open(work / f"{name}.db", environment=timer.environment) as table:
        if name.startswith("live"):
            print(tailprune.fill_table(table, graph, timer, progress=progress).summary())
        else:
            shapes = [s for group in graph.groups for w in group.grid for _, s in group_line(graph, group.id, w)]
            print(measure_missing(table, shapes, timer, progress=progress), "shapes timed")
        export_csv(table, ROOT / f"benchmarks/cpu/fill_{name}.csv.gz", digits=5)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
