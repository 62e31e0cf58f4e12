"""`tailprune table`: look into latency tables, check them, move them about."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from ..reports import facts_table
from ..tables import (
    LatencyTable,
    check_table,
    describe_table,
    diff,
    drift,
    export_csv,
    import_csv,
    merge,
    shipped_environments,
)
from ..tables.drift import RETIMED
from ..waves import known_devices, load_device
from .console import Json, note, out, print_json, warn
from .grouped import grouped
from .latency import Threads, here, make_timer
from .moved_edges import compare_edges
from .trtexec import TrtexecOptions, import_profile

app = typer.Typer(help="Look into latency tables, check them, move them about.", no_args_is_help=True)
File = Annotated[Path, typer.Argument(help="A latency table.", show_default=False)]


@app.command()
def info(file: File, json: Json = False) -> None:
    """What a table holds, and where it was measured."""
    with LatencyTable.open(file, create=False, read_only=True) as table:
        described, environment = describe_table(table).as_dict(), table.environment.as_dict()
    if json:
        print_json(described)
        return
    facts = {k: v for k, v in described.items() if k != "environment" and v not in ("", {})}
    out.print(facts_table(facts, title=str(file)))
    out.print(facts_table({k: v for k, v in environment.items() if v != ""}, title="environment"))


@app.command()
def check(
    file: File,
    device: Annotated[
        str | None, typer.Option("--device", "-d", help="cpu or cuda: also re-time a few entries here.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many entries to re-time.")] = RETIMED,
    threads: Threads = 1,
    json: Json = False,
) -> None:
    """Is a table sound, and does it still hold on this device? Exits with 1 if not."""
    with LatencyTable.open(file, create=False, read_only=True) as table:
        checked = check_table(table)
        drifted = (
            drift(table, make_timer(device, threads=threads, like=table.environment), count)
            if here(device) and not checked.problems  # contradicted plateaus do not keep it from being asked
            else None
        )
    for warning in drifted.warnings if drifted else ():
        warn(warning)
    if json:
        body = {"ok": checked.ok, "summary": checked.summary(), "problems": list(checked.problems)}
        print_json({**body, "drift": {"verdict": drifted.verdict, "scale": drifted.scale, "moved": len(drifted.moved), "re_timed": len(drifted.entries)} if drifted else None})  # fmt: skip
    else:
        print(f"{file}: {checked.summary()}")
        for problem in checked.problems:
            print(f"  {problem}")
        if drifted:
            print(f"  drift: {drifted.summary()}")
    if not checked.ok or (drifted and drifted.verdict == "drifted"):
        raise typer.Exit(1)


@app.command("merge")
def merge_files(
    into: Annotated[Path, typer.Argument(help="Table to add to; created if new.", show_default=False)],
    others: Annotated[list[Path], typer.Argument(help="Tables of the same environment.", show_default=False)],
) -> None:
    """Add what other tables of the same environment hold."""
    for path in others:
        with (
            LatencyTable.open(path, create=False, read_only=True) as other,
            LatencyTable.open(into, environment=other.environment) as table,
        ):
            report = merge(table, other)
        for warning in report.warnings:
            warn(warning)
        print(f"{path}: {report.added} visits added, {report.already_there} were there, {report.held} plateaus held")


@app.command("diff")
def diff_files(
    a: File, b: File, json: Json = False, most: Annotated[int, typer.Option(help="Rows to show.")] = 20
) -> None:
    """Which edges moved between two tables, and shape by shape how far they differ."""
    with (
        LatencyTable.open(a, create=False, read_only=True) as first,
        LatencyTable.open(b, create=False, read_only=True) as second,
    ):
        found = diff(first, second)
        edges = tuple(compare_edges(first, second))
    moved_edges = [line for line in edges if line.moved]
    moved = sorted((d for d in found.common if d.significant), key=lambda d: -abs(d.ratio - 1))
    if json:
        print_json(
            {
                "environment": {k: list(v) for k, v in found.environment.items()},
                "common": len(found.common),
                "significant": [
                    {"shape": str(d.shape), "a_us": d.a_us, "b_us": d.b_us, "ratio": d.ratio} for d in moved
                ],
                "only_a": len(found.only_a),
                "only_b": len(found.only_b),
                "edges": [dataclasses.asdict(line) for line in edges],
            }
        )
        return
    for field, (mine, theirs) in found.environment.items():
        print(f"{field}: {mine} | {theirs}")
    print(
        f"{len(found.common)} shapes in both, {len(moved)} differ beyond the noise; {len(found.only_a)} only in {a}, {len(found.only_b)} only in {b}"
    )
    print(f"{len(edges)} lines with confirmed edges measured in both, edges moved on {len(moved_edges)}")
    for line in moved_edges[:most]:
        parts = {
            "both": line.both,
            f"only {a.name}": line.only_a,
            f"only {b.name}": line.only_b,
            "unknown": line.unknown,
        }
        said = "; ".join(f"{name} {', '.join(map(str, widths))}" for name, widths in parts.items() if widths)
        print(f"  {line.line}: {said}")
    for d in moved[:most]:
        print(f"  {d.ratio:7.3f}  {d.a_us:,.1f} -> {d.b_us:,.1f} us  {d.shape}")


@app.command("export")
def export_file(
    file: File, csv: Annotated[Path, typer.Argument(help="CSV to write; gzipped if it ends in .gz.")]
) -> None:
    """Write a table as CSV with every raw time; pandas reads it with comment="#"."""
    with LatencyTable.open(file, create=False, read_only=True) as table:
        export_csv(table, csv)
    note(f"{csv} written")


@app.command("import")
@grouped
def import_file(
    *,
    source: Annotated[Path, typer.Argument(help="CSV that `table export` wrote, or trtexec's JSON.")],
    file: File,
    trtexec: TrtexecOptions,
    json: Json = False,
) -> None:
    """Read an exported CSV, or with --trtexec TensorRT's layer timings, into a table; created if new.

    Example: tailprune table import --trtexec profile.json t4.db -m torchvision:resnet18 --dtype float16 -d "Tesla T4"
    """
    if trtexec.trtexec:
        import_profile(source, file, trtexec, json=json)
        return
    read = import_csv(source)
    with LatencyTable.open(file, environment=read.environment) as table:
        report = merge(table, read)
    if json:
        print_json({"added": report.added, "already_there": report.already_there})
    else:
        note(f"{report.added} visits added to {file}, {report.already_there} were there")


@app.command()
def devices(json: Json = False) -> None:
    """GPUs that --device and --simulate know, and the tables that come with tailprune."""
    specs = [load_device(name) for name in known_devices()]
    shipped = [str(environment) for environment in shipped_environments()]
    if json:
        print_json(
            {
                "wave_model": [{"name": s.name, "num_sms": s.num_sms, "architecture": s.architecture} for s in specs],
                "shipped_tables": shipped,
            }
        )
        return
    facts = {s.name: f"{s.architecture}, {s.num_sms} SMs, {', '.join(s.peak_flops_per_s)}" for s in specs}
    out.print(facts_table(facts, title="wave model"))
    print("Shipped tables: " + ("; ".join(shipped) if shipped else "none yet"))
