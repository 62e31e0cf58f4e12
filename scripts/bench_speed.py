"""How long do a user's first steps take, and how much memory? Each in a fresh process, best of a few.

    python -m scripts.bench_speed

Writes benchmarks/speed.csv and benchmarks/speed.json. "First call" includes imports; the others are inside one process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from scripts.record import figure, record

TRACE = """
import json, resource, time, torch, torchvision, tailprune
model = torchvision.models.resnet50()
images = torch.randn(1, 3, 224, 224).to(memory_format=torch.channels_last)
tailprune.trace_model(torchvision.models.resnet18(), images)           # first use of torch's own machinery
start = time.perf_counter(); graph = tailprune.trace_model(model, images); trace = time.perf_counter() - start
graph = graph.at_batch(32, dtype="float16")
scores = tailprune.choose_host(tailprune.score_channels(model, graph), 0.45)
timer = tailprune.SimulatedTimer(tailprune.load_device("h200"))
table = tailprune.LatencyTable.in_memory(timer.environment)
tailprune.fill_table(table, graph, timer)
tailprune.measure_while(table, timer, lambda: tailprune.plan_widths(graph, scores, latency=table))
start = time.perf_counter(); plan = tailprune.plan_widths(graph, scores, latency=table); snap = time.perf_counter() - start
start = time.perf_counter(); tailprune.apply_plan(model, plan); apply = time.perf_counter() - start
print(json.dumps({"trace": trace, "snap": snap, "apply": apply, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))
"""


def once(*command: str) -> tuple[float, str]:
    start = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return time.perf_counter() - start, done.stdout


def main() -> None:
    rows: list[dict[str, object]] = []
    best: dict[str, float] = {}
    for repeat in range(5):
        found = {
            "python startup": once(sys.executable, "-c", "pass")[0],
            "import tailprune": once(sys.executable, "-c", "import tailprune")[0],
            "tailprune --help": once(sys.executable, "-m", "tailprune", "--help")[0],
        }
        if repeat < 2:
            found |= json.loads(once(sys.executable, "-c", TRACE)[1])
        for name, value in found.items():
            rows.append({"repeat": repeat, "what": name, "value": round(value, 5)})
            best[name] = min(best.get(name, value), value)
    record(
        "speed",
        figures={
            "import tailprune": figure(best["import tailprune"], 0.5, unit="s"),
            "tailprune --help": figure(best["tailprune --help"], 0.5, unit="s"),
            "trace ResNet-50": figure(best["trace"], 1.0, unit="s"),
            "snap ResNet-50 from a filled table": figure(best["snap"], 3.0, unit="s"),
            "apply the plan to ResNet-50": figure(best["apply"], unit="s"),
            "peak memory of all that": figure(best["peak_gb"], 2.0, unit="GiB"),
        },
        rows=rows,
        environment={"cpus": os.cpu_count()},
        notes=[f"best of 5 fresh processes (2 for ResNet-50); python startup alone: {best['python startup']:.3f} s"],
    )


if __name__ == "__main__":
    main()
