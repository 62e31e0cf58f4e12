"""How much of an H200 do all of torchvision's classification networks use, by the wave model, and how long does it take to ask?

    python -m scripts.bench_survey WORK [--device h200] [--stage timed|surveyed|written]

Stages keep what they found in the folder WORK: `timed` surveys all networks at one batch and dtype in a fresh folder (give it a core
of its own), `surveyed` does so at all batches and dtypes and goes on after an interruption, `written` writes docs/survey.md,
docs/figures/utilization-*.png and time-map.png, benchmarks/survey.csv and benchmarks/survey.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import tailprune
from scripts.record import ROOT, figure, record
from tailprune.cli.survey_all import published, survey_all
from tailprune.reports import plot_time_map, save_figure, write_survey_page

#: Not CNNs, although torchvision has them among its classifiers.
TRANSFORMERS = ("vision_transformer", "swin_transformer", "maxvit")
STAGES = ("timed", "surveyed", "written")
BATCHES, DTYPES = (1, 8, 32, 128), ("float32", "tf32", "float16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of what the stages found")
    parser.add_argument("--device", default="h200")
    parser.add_argument(
        "--stage", choices=STAGES, help="this stage alone (default: all, those that are done already left out)"
    )
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    model, timed = tailprune.WaveModel(tailprune.load_device(args.device)), args.work / "timed.json"
    if args.stage == "timed" or (args.stage is None and not timed.exists()):
        timed.write_text(json.dumps(time_one_batch(model)))
    if args.stage in ("surveyed", None):
        survey_all(
            model, args.work / "all", batches=BATCHES, dtypes=DTYPES, progress=lambda *said: print(*said, flush=True)
        )
    if args.stage in ("written", None):
        write(model, args.work / "all" / "survey.csv", json.loads(timed.read_text()))


def time_one_batch(model: tailprune.WaveModel) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        start, start_cpu = time.perf_counter(), time.process_time()
        survey_all(model, Path(folder), batches=BATCHES[2:3], dtypes=DTYPES[2:])
        return {"wall_s": time.perf_counter() - start, "processor_s": time.process_time() - start_cpu}


def write(model: tailprune.WaveModel, surveyed: Path, timed: Mapping[str, float]) -> None:
    with surveyed.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with tempfile.TemporaryDirectory() as folder:
        write_survey_page(rows, Path(folder), figures="figures")
        shutil.copy(Path(folder) / "survey.md", ROOT / "docs/survey.md")
        for picture in (Path(folder) / "figures").iterdir():
            shutil.copy(picture, ROOT / "docs/figures" / picture.name)
    graph = published("resnet50").graph.at_batch(32, dtype="float16", memory_format="channels_last")
    title = f"resnet50, batch 32, float16; {model.origin.partition(';')[0]}"
    found = tailprune.survey_utilization(graph, model)
    save_figure(plot_time_map(found, title=title), ROOT / "docs/figures/time-map.png")

    good = [row for row in rows if row["utilization"]]
    names = {row["model"] for row in rows}
    cnns = {row["model"] for row in good if row["family"] not in TRANSFORMERS}
    used = [float(row["utilization"]) for row in good]
    record(
        "survey",
        figures={
            "all networks, one batch and dtype": figure(timed["wall_s"], 180, unit="s"),
            "processor time of that": figure(timed["processor_s"], 180, unit="s"),
            "networks surveyed": figure(len({row["model"] for row in good})),
            "of them CNNs": figure(len(cnns)),
            "networks not surveyed": figure(len(names - {row["model"] for row in good})),
            "largest utilization": figure(max(used), 1.0),
            "smallest utilization": figure(min(used)),
            "networks with layers beyond the peak in float32, batch 128 (Winograd)": figure(
                sum(row["beyond_peak"] != "0" for row in good if (row["dtype"], row["batch"]) == ("float32", "128"))
            ),
            "with such layers on tensor cores, any batch": figure(
                sum(row["beyond_peak"] != "0" for row in good if row["dtype"] != "float32"), 0
            ),
        },
        rows=rows,
        environment={"cpus": os.cpu_count(), "latency": model.origin, "batches": BATCHES, "dtypes": DTYPES},
        notes=[
            "utilization is modelled, not measured; layers that beat a direct product at the peak (Winograd, float32) count as fully used",
            "the time includes importing torchvision, building, tracing and pricing every network, transformers too, in one process",
        ],
    )


if __name__ == "__main__":
    main()
