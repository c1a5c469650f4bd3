"""Keep what a run measured in results/, and make docs/reproductions.md and docs/benchmarks.md from results/ alone.

python scripts/results.py keep RUN NAME --command "stn train ..."     # results/NAME.json
stn bench --json results/benchmarks-cpu.json                          # a benchmark keeps itself
python scripts/results.py page                                        # both pages, and the benchmarks' pictures
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
PAGE = ROOT / "docs" / "reproductions.md"
BENCHMARKS_PAGE = ROOT / "docs" / "benchmarks.md"
PICTURES = ROOT / "docs" / "images"
BENCHMARK = "benchmarks-"  # how the names of benchmarks' records begin
# The papers' numbers for what we ran: error in percent.
PAPER = {
    ("R", "ST-FCN affine"): "1.2",
    ("RTS", "ST-CNN affine"): "0.5",
    ("plain", "Tutorial ST-CNN affine"): "1.1 to 1.5 (public runs)",
}
HEAD = """# What was measured

Made by `python scripts/results.py page` from the files in `results/`, one a run; do not edit. Each file holds the
config, the machine and the measurement. Residual pose and within-class variance: docs/maths.md. The optimiser is ours
(AdamW, cosine, label smoothing), not the paper's plain SGD.

"""
COLUMNS = (
    *("run", "set", "network", "error %", "paper", "rotation deg", "shift px", "log-scale"),
    *("variance, raw", "variance, share", "parameters", "steps", "seconds"),
)


def keep(run: Path, name: str, command: str) -> Path:
    """Collect a run folder's three records into results/NAME.json."""
    record: dict[str, Any] = {"command": command}
    for part in ("config", "environment", "evaluation"):
        record[part] = json.loads((run / f"{part}.json").read_text(encoding="utf-8"))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path


def page() -> str:
    """The page: a row a result, then the command and the machine of each."""
    records = {name: record for name, record in _records().items() if not name.startswith(BENCHMARK)}
    rows = "".join(_row(name, record["evaluation"]) for name, record in records.items())
    lines = [
        f"* `{name}`: `{record['command']}`, {_machine(record['environment'])}" for name, record in records.items()
    ]
    head = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
    return HEAD + head + rows + "\n## Commands and machines\n\n" + "\n".join(lines) + "\n"


def benchmarks() -> dict[str, dict[str, Any]]:
    """The records of `stn bench`, by name."""
    return {name: record for name, record in _records().items() if name.startswith(BENCHMARK)}


def benchmarks_page() -> str:
    """docs/benchmarks.md."""
    from torch_stn.lab.bench.page import page as render

    return render(benchmarks(), PICTURES.name)


def _records() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}


def _write_pages() -> None:
    from torch_stn.lab.bench.picture import draw

    PAGE.write_text(page(), encoding="utf-8")
    BENCHMARKS_PAGE.write_text(benchmarks_page(), encoding="utf-8")
    for name, record in benchmarks().items():
        (PICTURES / f"{name}.png").write_bytes(draw(record))
    print(PAGE, BENCHMARKS_PAGE)


def _row(name: str, evaluation: dict[str, Any]) -> str:
    pose, key = evaluation["pose"] or {}, (evaluation["set"], evaluation["label"])
    spread = f" ± {evaluation['error_sd']:.2f}" if evaluation["distortions"] > 1 else ""
    full = not evaluation["digits"].startswith("5,000")
    cells = [
        f"`{name}`",
        evaluation["set"] + ("" if full else ", 5,000 digits"),
        evaluation["label"],
        f"{evaluation['error']:.2f}{spread}",
        PAPER.get(key, "") if full else "",
        *(_change(pose.get(kind), digits) for kind, digits in (("rotation_deg", 1), ("shift_px", 2), ("log_scale", 3))),
        _change(evaluation["variance"], 4),
        _change(evaluation["variance_share"], 3),
        f"{evaluation['parameters']:,}",
        f"{evaluation['train_steps']:,}",
        f"{evaluation['train_seconds']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |\n"


def _change(pair: dict[str, float] | None, digits: int) -> str:
    return "" if pair is None else f"{pair['before']:.{digits}f} -> {pair['after']:.{digits}f}"


def _machine(environment: dict[str, Any]) -> str:
    threads = environment["threads"]
    return f"torch {environment['torch']}, {environment['device']}, {threads} thread{'s' if threads != 1 else ''}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="verb", required=True)
    keeping = commands.add_parser("keep")
    keeping.add_argument("run", type=Path)
    keeping.add_argument("name")
    keeping.add_argument("--command", required=True)
    commands.add_parser("page")
    arguments = parser.parse_args()
    if arguments.verb == "keep":
        print(keep(arguments.run, arguments.name, arguments.command))
    else:
        _write_pages()


if __name__ == "__main__":
    main()
