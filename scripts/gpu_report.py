"""Turn what scripts/gpu_suite.py found into a page with plots: device, versions, date and commit beside every number.

    python -m scripts.gpu_report DIR                         # docs/results-gpu.md, or docs/results-cpu.md for a CPU's results
    python -m scripts.gpu_report DIR --keep benchmarks/h200  # copies the raw results there first, and reads them from there

Nothing is measured here and nothing is made up: stages that the run did not reach are named as missing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, on machines where nothing is installed

from scripts.record import ROOT
from scripts.suite.journal import Journal
from scripts.suite.stages import FORMS, line_staircase, shape_from, stages
from tailprune import reports
from tailprune.core.artifact import write_text_atomically
from tailprune.reports import ComparisonRow, SweepPoint
from tailprune.tables import import_csv

ROLES = {"dense": "dense", "host": "host", "tailprune faster": "ours", "tailprune better": "ours"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the suite's --out")
    parser.add_argument("--keep", type=Path, help="folder for the raw results, such as benchmarks/h200")
    asked = parser.parse_args()
    results: Path = asked.results
    if not (results / "journal.jsonl").exists():
        parser.error(f"{results} holds no journal.jsonl; run scripts/gpu_suite.py --out {results} first")
    if asked.keep:
        asked.keep.mkdir(parents=True, exist_ok=True)
        for file in (results / "journal.jsonl", *results.glob("table-*.csv.gz")):
            shutil.copyfile(file, asked.keep / file.name)
        results = asked.keep
    write_page(Journal(results / "journal.jsonl"), results)


def write_page(journal: Journal, results: Path) -> None:
    run = list(journal.of("run"))[-1]
    form = "cpu" if run["environment"]["num_sms"] == 1 else "gpu"
    figures = ROOT / "docs/figures"
    figures.mkdir(exist_ok=True)
    sections = [
        heading(run, form, results),
        tables_section(journal),
        staircases_section(journal, results, figures, form),
        edges_section(journal),
        sweeps_section(journal, figures, form),
        utilization_section(journal),
        missing_section(journal, form),
    ]
    page = ROOT / f"docs/results-{form}.md"
    write_text_atomically(page, "\n\n".join(section for section in sections if section) + "\n")
    print(page)


def heading(run: dict[str, Any], form: str, results: Path) -> str:
    environment, versions = run["environment"], ", ".join(f"{name} {v}" for name, v in run["versions"].items())
    size = f"{environment['threads']} threads" if form == "cpu" else f"{environment['num_sms']} SMs "
    where = results.resolve()
    raw = where.relative_to(ROOT) if where.is_relative_to(ROOT) else where.name
    return f"""# Results on {"a CPU" if form == "cpu" else "a GPU"}: {environment["device"]}

Written by `scripts/gpu_report.py` from `{raw}`, which `scripts/gpu_suite.py` measured; nothing here was typed in.

| | |
|---|---|
| device | {environment["device"]}, {size}{environment["partition"]} |
| runtime | {environment["runtime"]}, L2 {environment["l2"]}, {environment["fusion"]}, TF32 {"on" if environment["tf32"] else "off"}, autotuning {"on" if environment["autotuning"] else "off"} |
| driver, CUDA, cuDNN | {", ".join(filter(None, (environment["driver"], environment["cuda"], environment["cudnn"]))) or "none"} |
| versions | Python {run["python"]}, {versions} |
| date | {run["stage"].removeprefix("run ")} |
| commit | {run["commit"] or "not recorded"} |

Weights are random: a latency depends on widths alone, so importance here says how much of random weights was kept, and nothing
about accuracy. Latencies are for one call of a whole batch."""


def tables_section(journal: Journal) -> str:
    lines = [
        f"- {setting_of(stage)}: {stage['summary']} With what earlier runs had measured the table then held "
        f"{stage['table_shapes']:,} shapes in {stage['table_visits']:,} visits."
        for stage in journal.of("fill")
    ]
    return "## Filling the table\n\n" + "\n".join(lines) if lines else ""


def staircases_section(journal: Journal, results: Path, figures: Path, form: str) -> str:
    parts = []
    for stage in journal.of("staircase"):
        table = import_csv(results / f"table-{runtime_of(journal, stage)}.csv.gz")
        staircase = line_staircase(table, shape_from(stage["shape"]), stage["axis"])
        name = f"results-{form}-{stage['layer'].replace('.', '-')}-{stage['axis']}.png"
        title = f"{stage['layer']} along {stage['axis']}, every channel"
        reports.save_figure(reports.plot_staircase(staircase, title=title), figures / name, alt=title)
        edges = [edge for edge in stage["edges"] if edge["verdict"] == "confirmed"]
        largest = sorted(edges, key=lambda edge: -abs(edge["riser"]))[:6]
        said = ", ".join(
            f"{edge['width']} ({edge['riser']:+.0%})" for edge in sorted(largest, key=lambda e: e["width"])
        )
        parts.append(
            f"### {title}\n\n{shape_from(stage['shape'])}. {len(edges)} confirmed edges, {len(stage['edges']) - len(edges)} "
            f"ambiguous; noise floor {stage['noise_floor']:.2%}. Largest risers: {said or 'none'}.\n\n![{title}](figures/{name})"
        )
    return "## Staircases at step 1\n\n" + "\n\n".join(parts) if parts else ""


def edges_section(journal: Journal) -> str:
    found = next(iter(journal.of("kernels")), None)
    if not found:
        return ""
    counts: dict[str, int] = defaultdict(int)
    for edge in found["edges"]:
        counts[edge["cause"]] += 1
    rows = [
        f"| {edge['layer']} along {edge['axis']} | {edge['width']} | {edge['riser']:+.1%} | {edge['cause']} | {edge['detail']} |"
        for edge in found["edges"]
    ]
    said = ", ".join(f"{count} {cause}" for cause, count in sorted(counts.items(), key=lambda item: -item[1]))
    return (
        f"## What the largest edges are\n\nOf {found['confirmed_edges']} confirmed edges the {len(rows)} with the largest risers: "
        f"{said or 'none'}. On a GPU the profiler's kernel name, grid and block tell; on a CPU oneDNN's implementation and the "
        "layout it packs weights into (`ABcd16b16a`: blocks of 16 output and 16 input channels).\n\n"
        "| layer | edge | riser | cause | evidence |\n|---|--:|--:|---|---|\n" + "\n".join(rows)
    )


def sweeps_section(journal: Journal, figures: Path, form: str) -> str:
    sweeps: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for stage in journal.of("sweep"):
        sweeps[f"{setting_of(stage)}, {stage['importance']} {stage['scope']}"].append(stage)
    parts = []
    for number, (title, found) in enumerate(sweeps.items(), 1):
        found.sort(key=lambda stage: stage["ratio"])
        points, rows = [], []
        for stage in found:
            us = {c["name"]: c["measured_us"] for c in stage["contestants"]}
            points += [
                SweepPoint(ratio=stage["ratio"], method=name, measured_us=time, role=ROLES.get(name, "rival"))  # type: ignore[arg-type]
                for name, time in us.items()
                if name not in ("dense", "tailprune better")  # which aims at the host's latency, not below
            ]
            rows.append(sweep_row(stage, us))
        name = f"results-{form}-sweep-{number}.png"
        reports.save_figure(reports.plot_ratio_sweep(points), figures / name, alt=title)
        head = (
            "| ratio | dense µs | host µs | best multiple µs | faster µs | better µs | faster against host | against best multiple |"
            "\n|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        )
        parts.append(
            f"### {title}\n\n![{title}](figures/{name})\n\n{verdict(found)}\n\n{head}" + "\n".join(rows)
            + "\n\n" + prediction(found, title, figures, f"results-{form}-predicted-{number}.png")
        )  # fmt: skip
    intro = (
        "Dense, the unrounded host, fixed multiples (each bisected to no less importance than the host's) and tailprune, all "
        "measured interleaved at each ratio. Whole networks, norms folded; on a CPU each put together from the calm times of its parts "
        "(docs/measuring.md), whole passes stand in the journal."
    )
    return f"## Latency against the pruning ratio\n\n{intro}\n\n" + "\n\n".join(parts) if parts else ""


def savings(stage: dict[str, Any]) -> tuple[float, float | None]:
    """What `faster` saves against the host, and against the best fixed multiple at this ratio."""
    us = {c["name"]: c["measured_us"] for c in stage["contestants"]}
    best = min((time for name, time in us.items() if name.startswith("multiple")), default=None)
    return 1 - us["tailprune faster"] / us["host"], None if best is None else 1 - us["tailprune faster"] / best


def sweep_row(stage: dict[str, Any], us: dict[str, float]) -> str:
    multiples = {name: time for name, time in us.items() if name.startswith("multiple")}
    best = min(multiples, key=lambda name: multiples[name], default="")
    against_host, against_best = savings(stage)
    cells = [
        f"{stage['ratio']:.2f}", f"{us['dense']:,.0f}", f"{us['host']:,.0f}",
        f"{multiples[best]:,.0f} ({best.split()[-1]})" if best else "-", f"{us['tailprune faster']:,.0f}",
        f"{us['tailprune better']:,.0f}" if "tailprune better" in us else "-",
        f"{-against_host:+.1%}", "-" if against_best is None else f"{-against_best:+.1%}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def verdict(found: list[dict[str, Any]]) -> str:
    pairs = [savings(stage) for stage in found]
    rivals = [against for _, against in pairs if against is not None]
    said = [
        f"Over {len(found)} ratios `faster` takes {median(p[0] for p in pairs):.1%} less time than the host in the median"
    ]
    if rivals:
        said += [f"{median(rivals):.1%} less than the best fixed multiple"]
    if gains := [gain for stage in found if (gain := better_gain(stage))]:
        importance, time = (median(values) for values in zip(*gains, strict=True))
        said += [f"`better` keeps {100 * importance:.1f} points more importance at {time:+.1%} time"]
    crowded = [stage for stage in found if any("the core was taken or shared" in note for note in stage["notes"])]
    noise = (
        f" The core was taken or shared during measurements at {len(crowded)} of {len(found)} ratios."
        if crowded
        else ""
    )
    return ", ".join(said) + "." + noise


def better_gain(stage: dict[str, Any]) -> tuple[float, float] | None:
    """What `better` keeps above the host's importance, and what its time is beyond the host's: 0 by prediction."""
    by_name = {c["name"]: c for c in stage["contestants"]}
    if "tailprune better" not in by_name:
        return None
    better, host = by_name["tailprune better"], by_name["host"]
    return better["importance"] - host["importance"], better["measured_us"] / host["measured_us"] - 1


def prediction(found: list[dict[str, Any]], title: str, figures: Path, name: str) -> str:
    """Sums of layers beside whole networks, for every contestant whose layers are in the table."""
    errors: dict[str, list[float]] = defaultdict(list)
    rows = []
    for stage in found:
        for c in stage["contestants"]:
            if c["predicted_us"] is not None:
                us = c["measured_us"]
                errors[c["name"]].append(c["predicted_us"] / us - 1)
                if stage is found[len(found) // 2]:
                    rows.append(ComparisonRow(method=c["name"], role=ROLES[c["name"]], predicted_us=c["predicted_us"], measured_us=us))  # type: ignore[arg-type]  # fmt: skip
    reports.save_figure(
        reports.plot_predicted_measured(rows), figures / name, alt=f"predicted against measured, {title}"
    )
    said = "; ".join(
        f"{method} {median(values):+.1%} (worst {max(values, key=abs):+.1%})" for method, values in errors.items()
    )
    ratio = found[len(found) // 2]["ratio"]
    return (
        f"Predicted against measured, median error over the ratios: {said}. At ratio {ratio:.2f}:\n\n"
        f"![predicted against measured](figures/{name})"
    )


def utilization_section(journal: Journal) -> str:
    parts = []
    for stage in journal.of("utilization"):
        layers = stage["layers"]
        total = sum(layer["us"] for layer in layers)
        rate = sum(layer["us"] * layer["flops_per_s"] for layer in layers) / total
        known = [layer for layer in layers if layer["utilization"] is not None]
        share = f", {sum(la['us'] * la['utilization'] for la in known) / total:.1%} of the stated peak" if known else ""
        slowest = min(layers, key=lambda layer: layer["flops_per_s"])
        parts.append(
            f"- {setting_of(stage)}: {rate / 1e9:,.0f} GFLOP/s over all matrix layers{share}; least in {slowest['name']}, "
            f"{slowest['flops_per_s'] / 1e9:,.1f} GFLOP/s. Peak: {stage['peak_origin']}"
        )
    return "## Utilization of the dense network\n\n" + "\n".join(parts) if parts else ""


def missing_section(journal: Journal, form: str) -> str:
    """What the run did not reach, and what failed, by tier."""
    lines = []
    for tier in "ABC":
        todo = [stage.name for stage in stages(FORMS["cpu" if form == "cpu" else "cuda"], tier)]
        missing = [name for name in todo if name not in journal.entries]
        lines.append(
            f"- tier {tier}: {len(todo) - len(missing)} of {len(todo)} stages" + ("" if missing else ", complete")
        )
    failed = [f"- failed: {name}: {e['error']}" for name, e in journal.entries.items() if "error" in e]
    return "## What was run\n\n" + "\n".join(lines + failed)


def setting_of(stage: dict[str, Any]) -> str:
    found = stage["setting"]
    return f"{found['network']} batch {found['batch']}, {found['side']}x{found['side']}, {found['dtype']}{' ' + found['runtime'] if found['runtime'] else ''}"


def runtime_of(journal: Journal, stage: dict[str, Any]) -> str:
    return stage["setting"]["runtime"] or list(journal.of("run"))[-1]["environment"]["runtime"]


if __name__ == "__main__":
    main()
