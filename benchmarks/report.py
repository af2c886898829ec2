"""The report: a table for people, and one JSON file with every number behind it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table

from benchmarks.harness import Findings, Target
from pipeline import __version__

_NOTED_PACKAGES = ("torch", "transformers", "ray")


def table(targets: Sequence[Target], figures: dict[str, float]) -> Table:
    """The figures beside their targets; figures that miss a target are marked."""
    shown = Table(title="Benchmarks", title_justify="left")
    shown.add_column("figure", no_wrap=True)
    shown.add_column("what it says")
    shown.add_column("measured", justify="right")
    shown.add_column("target", justify="right")
    shown.add_column("")
    for target in targets:
        figure = figures.get(target.key)
        if figure is None:
            shown.add_row(target.key, target.meaning, "not measured", "", "")
            continue
        shown.add_row(
            target.key,
            target.meaning,
            f"{figure:.3g}",
            f"{'≤' if target.at_most else '≥'} {target.bound:g}",
            "met" if target.met(figure) else "[bold red]missed[/]",
        )
    return shown


def report(targets: Sequence[Target], findings: Findings, *, settings: dict[str, Any]) -> dict[str, Any]:
    """The measurements, the machine and the model, as JSON."""
    return {
        "figures": findings.figures,
        "details": findings.details,
        "targets": {
            target.key: {**asdict(target), "met": target.met(findings.figures[target.key])}
            for target in targets
            if target.key in findings.figures
        },
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in _NOTED_PACKAGES},
            "drllm-pipeline": __version__,
        },
        "commit": commit(),
        "settings": settings,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def add(file: Path, section: str, content: dict[str, Any]) -> None:
    """Write a section's report to a file. The file keeps the reports of other sections, with their dates."""
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    joined = {**content}
    for part in ("figures", "details", "targets"):
        joined[part] = {**before.get(part, {}), **content[part]}
    provenance = {key: content[key] for key in ("commit", "date", "settings", "machine", "versions")}
    joined["sections"] = {**before.get("sections", {}), section: provenance}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(joined, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """A description of this machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
    }


def _processor() -> str:
    """The processor's name; Linux says more than Python does."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def commit() -> str:
    """The checked-out commit, with ``-dirty`` where files differ from it; empty outside a checkout."""
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
