#!/usr/bin/env python
"""Which networks does tailprune take, from trace to a pruned network that runs? Writes docs/coverage.md.

Every torchvision classification model (and 20 of timm, where it is installed) goes down the whole road in a process of its
own, under a time and a memory limit. Rows are kept in benchmarks/coverage.csv as they come: a second run measures only
what is missing, `--only` lists models to measure again, `--models` limits the run, `--render` just writes the page.

    nice -n 10 python scripts/make_coverage.py
    python scripts/make_coverage.py --only torchvision:swin_t timm:hrnet_w18
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROWS, PAGE = ROOT / "benchmarks" / "coverage.csv", ROOT / "docs" / "coverage.md"
DEVICE, BATCH, RATIO = "h200", 8, 0.45
#: Above this many parameters the network is built without data (meta device): random scores, shapes checked, no numbers.
MAX_NUMERIC = 150e6
#: Where the pruned network is run on data: the smallest of these image sides that the network accepts, else its own.
SIDES = (64, 96, 128)
#: Popular CNNs of timm, one or two of each family, chosen by name before any of them was tried.
TIMM = (
    "resnet50d", "seresnet50", "ecaresnet50t", "resnext50_32x4d", "resnest50d", "res2net50_26w_4s", "regnety_008",
    "mobilenetv3_large_100", "mobilenetv4_conv_small", "efficientnet_lite0", "tf_efficientnetv2_s", "ghostnet_100",
    "rexnet_100", "dla34", "hrnet_w18", "cspdarknet53", "convnext_tiny", "repvgg_a0", "densenet121", "xception41",
)  # fmt: skip
#: What differs between places that fall short for the same reason: names of layers, and sizes.
NAMES = re.compile(r"\w+(\.\w+)+|\b\d+\b|\w*\d\w*")
FIELDS = (
    "model", "family", "parameters", "image", "groups", "prunable", "layers", "untraced", "untraced_reasons",
    "fixed_reasons", "moved", "host_us", "plan_us", "status", "run_image", "out_shape", "verified", "trace_s", "plan_s",
    "apply_s", "peak_mb", "error", "versions",
)  # fmt: skip


def names() -> list[str]:
    import torchvision

    found = [f"torchvision:{name}" for name in torchvision.models.list_models(module=torchvision.models)]
    return found + ([f"timm:{name}" for name in TIMM] if util.find_spec("timm") else [])


# One model: in a child process.


def build(spec: str) -> tuple[Any, str, int]:
    """(network in evaluation mode, its family, the side of its images), random weights of seed 0."""
    import torch

    source, name = spec.split(":")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if source == "timm":
            import timm

            model = timm.create_model(name, pretrained=False)
            return model.eval(), type(model).__module__.rpartition(".")[2], model.default_cfg["input_size"][-1]
        import torchvision

        builder = torchvision.models.get_model_builder(name)
        options = (
            {"init_weights": True} if name == "googlenet" else {"init_weights": False} if name == "inception_v3" else {}
        )
        model = builder(weights=None, **options)
    crops = [weights.transforms().crop_size[0] for weights in torchvision.models.get_model_weights(name)]
    side = getattr(model, "image_size", crops[0] if crops else 224)
    return model.eval(), builder.__module__.rpartition(".")[2], side


def stir(model: Any) -> None:
    """Norms and heads as after training, so that a wrong channel shows: fresh ones are all equal, some are all zero."""
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for values in (module.weight, module.running_var):
                if values is not None:
                    nn.init.uniform_(values, 0.5, 1.5, generator=generator)
            for values in (module.bias, module.running_mean):
                if values is not None:
                    nn.init.uniform_(values, -0.1, 0.1, generator=generator)
        elif isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.02, generator=generator)


def run(pruned: Any, own: int) -> tuple[Any, Any]:
    """(images of the smallest side that this network runs on, what it makes of them)."""
    import torch

    device = next(pruned.parameters()).device
    for side in (*SIDES, own):
        images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
        try:
            with torch.no_grad():
                return images, pruned(images)
        except (RuntimeError, AssertionError, ValueError):  # what a network says to images it was not made for
            if side == own:
                raise
    raise AssertionError("the network's own side is always tried")


def gathered(entries: Iterable[str]) -> str:
    """`place: reason` entries with equal reasons as one, whatever layer or number a reason names."""
    places: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    for entry in entries:
        place, _, why = entry.partition(": ")
        key = NAMES.sub("N", why)
        places.setdefault(key, []).append(place)
        first.setdefault(key, why)
    ordered = sorted(places, key=lambda key: -len(places[key]))
    return " | ".join(
        f"{places[key][0]}{f' and {len(places[key]) - 1} like it' if len(places[key]) > 1 else ''}: {first[key]}"
        for key in ordered
    )


class Stopwatch:
    """CPU seconds of one step of this process: the machine may be shared."""

    def __enter__(self) -> Stopwatch:
        self._start = time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.process_time() - self._start


def measure(spec: str) -> dict[str, Any]:
    import torch
    import torchvision

    import tailprune

    torch.set_num_threads(1)
    row: dict[str, Any] = {"model": spec, "versions": versions(torch.__version__, torchvision.__version__)}
    try:
        model, row["family"], side = build(spec)
        row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        row["image"] = side
        numeric = row["parameters"] <= MAX_NUMERIC
        if numeric:
            stir(model)
        else:
            model = model.to("meta")
        device = "cpu" if numeric else "meta"
        with Stopwatch() as watch:
            graph = tailprune.trace_model(model, torch.zeros(1, 3, side, side, device=device), name=spec)
        fixed = [f"{group.id}: {group.reason}" for group in graph.groups if not group.prunable]
        row |= {
            "trace_s": f"{watch.seconds:.2f}", "groups": len(graph.groups), "prunable": len(graph.prunable_groups),
            "layers": len(graph.layers), "untraced": len(graph.untraced), "untraced_reasons": gathered(graph.untraced),
            "fixed_reasons": gathered(fixed),
        }  # fmt: skip
        graph = graph.at_batch(BATCH, dtype="float16")
        with Stopwatch() as watch:
            scores = tailprune.score_channels(model, graph, "magnitude" if numeric else "random", seed=0)
            host = tailprune.choose_host(scores, RATIO, scope="global")
            latency = tailprune.WaveModel(tailprune.load_device(DEVICE))
            plan = tailprune.plan_widths(graph, host, latency=latency, policy="snap", goal="faster")
        row |= {"plan_s": f"{watch.seconds:.2f}", "moved": len(plan.moved), "host_us": f"{plan.host_us:.1f}",
                "plan_us": f"{plan.predicted_us:.1f}", "status": plan.status}  # fmt: skip
        with Stopwatch() as watch:
            pruned = tailprune.apply_plan(model, plan)
        row["apply_s"] = f"{watch.seconds:.2f}"
        images, output = run(pruned, side)
        row["run_image"], row["out_shape"] = images.shape[-1], "x".join(map(str, output.shape))
        if numeric:
            found = tailprune.verify_pruned(model, pruned, plan, images)
            reason = f"not compared: {found.reason}" if found.error is None else f"equal to {found.error:.0e}"
            row["verified"] = reason if found.ok else f"WRONG: {found}"
        else:
            row["verified"] = f"shapes only: more than {MAX_NUMERIC / 1e6:.0f} M parameters, no data"
    except tailprune.TailpruneError as error:
        row["error"] = f"{type(error).__name__}: {error}"
    except MemoryError:
        row["error"] = "out of memory"
    except Exception as error:
        row["error"] = f"unexpected {type(error).__name__}: {str(error).splitlines()[:1]}"
    return row


def versions(torch: str, torchvision: str) -> str:
    found = {"torch": torch, "torchvision": torchvision, "torch-pruning": metadata.version("torch-pruning")}
    if util.find_spec("timm"):
        import timm

        found["timm"] = timm.__version__
    return ", ".join(f"{name} {version}" for name, version in found.items()) + f", Python {platform.python_version()}"


# All models: in the parent.


def measure_apart(spec: str, limit_s: float, limit_gb: float) -> dict[str, Any]:
    """`measure` in a process that may neither run on for ever nor take the machine's memory."""
    command = [sys.executable, __file__, "--child", spec, "--limit-gb", str(limit_gb)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, env=environment)
    except subprocess.TimeoutExpired:
        return {"model": spec, "error": f"not finished within {limit_s:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1][:200]
        return {"model": spec, "error": f"ended with {done.returncode} under {limit_gb:g} GB: {last}"}
    return json.loads(lines[-1])


def read_rows() -> dict[str, dict[str, str]]:
    if not ROWS.exists():
        return {}
    with ROWS.open(newline="") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def write_rows(rows: dict[str, dict[str, Any]]) -> None:
    part = ROWS.with_suffix(".part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))
    part.replace(ROWS)


# The page.


def taken(row: dict[str, str]) -> bool:
    """Did it go down the whole road, with something to prune, and come out right?"""
    return not row["error"] and row["prunable"] != "0" and not row["verified"].startswith("WRONG")


def notes_of(row: dict[str, str]) -> Iterator[tuple[str, int]]:
    """(what fell short in this row, at how many places); that a network keeps its outputs is no shortcoming."""
    for field, what in (("untraced_reasons", "untraced"), ("fixed_reasons", "keeps its width")):
        for reason in filter(None, row[field].split(" | ")):
            found = re.match(r"(?P<place>\S+?)(?: and (?P<more>\d+) like it)?: (?P<why>.*)", reason)
            assert found is not None, reason
            if found["why"] != "it is the network's output":
                yield f"{what}: {NAMES.sub('N', found['why'])}", 1 + int(found["more"] or 0)


def render(rows: dict[str, dict[str, str]]) -> str:
    families: dict[str, list[dict[str, str]]] = {}
    for row in rows.values():
        families.setdefault(f"{row['model'].split(':')[0]} {row['family'] or '(none)'}", []).append(row)
    ours = [row for row in rows.values() if row["model"].startswith("torchvision:")]
    lines = ["# Coverage: which networks tailprune takes", "", summary("torchvision classification models", ours)]
    others = [row for row in rows.values() if row["model"].startswith("timm:")]
    if others:
        lines += ["", summary("timm CNNs", others)]
    lines += ["", HOW, ""]
    notes: dict[str, list[str]] = {}
    for family in sorted(families, key=lambda f: (f.startswith("timm"), f)):
        lines += [f"## {family}", "", HEAD, RULE]
        lines += [line(row, notes) for row in sorted(families[family], key=lambda row: int(row["parameters"] or 0))]
        lines.append("")
    lines += [
        "## What fell short",
        "",
        "N stands for names of layers and sizes; `benchmarks/coverage.csv` has the first of each.",
        "",
    ]
    lines += [f"{i}. {note} ({', '.join(dict.fromkeys(places))})" for i, (note, places) in enumerate(notes.items(), 1)]
    lines += [
        "",
        "Measured with " + "; ".join(sorted({row["versions"] for row in rows.values() if row["versions"]})) + ".",
    ]
    return "\n".join(lines) + "\n"


HEAD = "| model | params | image | prunable / groups | layers | untraced | moved | host -> plan, us | output | removed = zeroed | trace / plan / apply, s | notes |"
RULE = "|---|--:|--:|--:|--:|--:|--:|--:|---|---|--:|---|"
HOW = f"""Written by `python scripts/make_coverage.py`; the raw rows are in `benchmarks/coverage.csv`. Each model goes down the whole road in
a process of its own: trace at its own image size -> magnitude scores of random weights (seed 0, norms stirred) -> an
unrounded global host at ratio {RATIO} -> snap/faster on the wave model of the {DEVICE.upper()} (batch {BATCH}, float16; **modelled**, nothing here is
a measured latency) -> `apply_plan` -> a forward pass and `verify_pruned` on one random image, {SIDES[0]} pixels wide where the model takes that,
else its own size. *removed = zeroed* is the largest difference, relative and in float64, between the pruned network and
the dense one with those channels zeroed; it is not defined where a norm over channels (layer norm) is cut.
Above {MAX_NUMERIC / 1e6:.0f} M parameters a network is traced and cut without data (random scores), and only shapes are checked. *untraced* counts
what runs without a latency shape or without channels that can be followed; numbers under *notes* point to the reasons below, with
how many places each holds for. Seconds are CPU seconds of one thread on a shared machine (plan
includes scoring). Rows are kept from run to run; `--only` measures some again."""


def summary(what: str, rows: list[dict[str, str]]) -> str:
    good = [row for row in rows if taken(row)]
    families, working = {row["family"] for row in rows}, {row["family"] for row in good}
    rest = ", ".join(sorted(row["model"] for row in rows if not taken(row)))
    prunable, groups = (sum(int(row[key]) for row in good) for key in ("prunable", "groups"))
    parts = [f"{prunable:,} of {groups:,} channel groups are prunable"]
    for start, outcome in OUTCOMES.items():
        if count := sum(row["verified"].startswith(start) for row in good):
            parts.append(f"{count} {outcome}")
    return (
        f"**{len(good)} of {len(rows)} {what} ({len(working)} of {len(families)} families) trace, plan, prune and run**: "
        f"{'; '.join(parts)}." + (f" Not taken: {rest}." if rest else "")
    )


OUTCOMES = {
    "equal": "equal the dense network with those channels zeroed",
    "not compared": "cut a norm over channels, where that comparison is not defined",
    "shapes": "checked by shapes only, for their size",
}


def line(row: dict[str, str], notes: dict[str, list[str]]) -> str:
    marks = []
    for note, times in notes_of(row):
        notes.setdefault(note, []).append(row["family"] if row["model"].startswith("torchvision:") else row["model"])
        marks.append(f"{list(notes).index(note) + 1} ({times}x)")
    name = row["model"].split(":")[1]
    if row["error"]:
        return f"| {name} | {_millions(row)} | {row['image']} | | | | | | | {row['error'].replace('|', '/')} | | |"
    seconds = " / ".join(row[key] for key in ("trace_s", "plan_s", "apply_s"))
    output = row["out_shape"] + (f" at {row['run_image']}" if row["run_image"] != row["image"] else "")
    verified = (
        "not defined" if row["verified"].startswith("not compared") else row["verified"].removeprefix("equal to ")
    )
    verified = "shapes only" if verified.startswith("shapes") else verified
    return (
        f"| {name} | {_millions(row)} | {row['image']} | {row['prunable']} / {row['groups']} | {row['layers']} | {row['untraced']} | "
        f"{row['moved']} | {float(row['host_us']):,.0f} -> {float(row['plan_us']):,.0f} | {output} | {verified} | {seconds} | "
        f"{', '.join(marks)} |"
    )


def _millions(row: dict[str, str]) -> str:
    return f"{int(row['parameters']) / 1e6:.1f} M" if row["parameters"] else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["*"], help="only these, as patterns (torchvision:vgg*)")
    parser.add_argument("--only", nargs="+", default=[], help="measure these again, as patterns")
    parser.add_argument("--limit-s", type=float, default=300.0, help="wall seconds a model")
    parser.add_argument("--limit-gb", type=float, default=8.0, help="memory a model")
    parser.add_argument("--render", action="store_true", help="only write the page from the rows that are there")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        size = int(arguments.limit_gb * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
        row = measure(arguments.child)
        print(json.dumps({**row, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))
        return
    ROWS.parent.mkdir(exist_ok=True)
    rows: dict[str, dict[str, Any]] = dict(read_rows())
    wanted = [] if arguments.render else names()
    for spec in wanted:
        again = any(fnmatch.fnmatch(spec, pattern) for pattern in arguments.only)
        if (again or (spec not in rows and not arguments.only)) and any(
            fnmatch.fnmatch(spec, p) for p in arguments.models
        ):
            start = time.monotonic()
            rows[spec] = measure_apart(spec, arguments.limit_s, arguments.limit_gb)
            write_rows(rows)
            print(
                f"{spec}: {rows[spec].get('error') or rows[spec]['verified']} ({time.monotonic() - start:.0f} s)",
                file=sys.stderr,
            )
    PAGE.write_text(render(read_rows()))
    print(f"{PAGE.relative_to(ROOT)} written", file=sys.stderr)


if __name__ == "__main__":
    main()
