"""How much of an H200 do all of torchvision's classification networks use, by the wave model, and how long does it take to ask?

    python -m scripts.bench_survey [--device h200]

Writes docs/survey.md, docs/figures/utilization-*.png and time-map.png, benchmarks/survey.csv and benchmarks/survey.json.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import tempfile
import time
from pathlib import Path

import tailprune
from scripts.record import ROOT, figure, record
from tailprune.cli.survey_all import published, survey_all
from tailprune.reports import plot_time_map, save_figure, write_survey_page

#: Not CNNs, although torchvision has them among its classifiers.
TRANSFORMERS = ("vision_transformer", "swin_transformer", "maxvit")
BATCHES, DTYPES = (1, 8, 32, 128), ("float32", "tf32", "float16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="h200")
    args = parser.parse_args()
    model = tailprune.WaveModel(tailprune.load_device(args.device))
    with tempfile.TemporaryDirectory() as folder:
        start, start_cpu = time.perf_counter(), time.process_time()
        survey_all(model, Path(folder) / "one", batches=BATCHES[2:3], dtypes=DTYPES[2:])
        one_batch_s, one_batch_cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
        survey_all(model, Path(folder), batches=BATCHES, dtypes=DTYPES)
        with (Path(folder) / "survey.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    with tempfile.TemporaryDirectory() as folder:
        write_survey_page(rows, Path(folder), figures="figures")
        shutil.copy(Path(folder) / "survey.md", ROOT / "docs/survey.md")
        for picture in (Path(folder) / "figures").iterdir():
            shutil.copy(picture, ROOT / "docs/figures" / picture.name)
    graph = published("resnet50").graph.at_batch(32, dtype="float16", memory_format="channels_last")
    title = f"resnet50, batch 32, float16; {model.origin}"
    found = tailprune.survey_utilization(graph, model)
    save_figure(plot_time_map(found, title=title), ROOT / "docs/figures/time-map.png")

    good = [row for row in rows if row["utilization"]]
    names = {row["model"] for row in rows}
    cnns = {row["model"] for row in good if row["family"] not in TRANSFORMERS}
    tensor = [float(row["utilization"]) for row in good if row["dtype"] != "float32"]
    record(
        "survey",
        figures={
            "all networks, one batch and dtype": figure(one_batch_s, 180, unit="s"),
            "processor time of that": figure(one_batch_cpu_s, 180, unit="s"),
            "networks surveyed": figure(len({row["model"] for row in good})),
            "of them CNNs": figure(len(cnns)),
            "networks not surveyed": figure(len(names - {row["model"] for row in good})),
            "largest utilization on tensor cores": figure(max(tensor), 1.0),
            "smallest utilization": figure(min(float(row["utilization"]) for row in good)),
        },
        rows=rows,
        environment={"cpus": os.cpu_count(), "latency": model.origin, "batches": BATCHES, "dtypes": DTYPES},
        notes=[
            "utilization is modelled, not measured; above 1 in float32 because Winograd makes fewer multiplications than are counted",
            "the time includes importing torchvision, building, tracing and pricing every network, transformers too, in one process",
        ],
    )


if __name__ == "__main__":
    main()
