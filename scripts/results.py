"""Keep what a run measured in results/, and make docs/reproductions.md and docs/benchmarks.md from results/ alone.

stn reproduce TABLE                                                   # results/TABLE/CELL-SEED.json
python scripts/results.py keep RUN NAME --command "stn train ..."     # results/NAME.json
stn bench --json results/benchmarks-cpu-xeon.json                     # a benchmark keeps itself
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
    """docs/reproductions.md."""
    from torch_stn.lab.report.reproductions import markdown
    from torch_stn.lab.report.results import read_results

    return markdown(read_results(RESULTS))


def benchmarks() -> dict[str, dict[str, Any]]:
    """The records of `stn bench`, by name."""
    paths = sorted(RESULTS.glob(f"{BENCHMARK}*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def benchmarks_page() -> str:
    """docs/benchmarks.md."""
    from torch_stn.lab.bench.page import page as render

    return render(benchmarks(), PICTURES.name)


def _write_pages() -> None:
    from torch_stn.lab.bench.picture import draw

    PAGE.write_text(page(), encoding="utf-8")
    BENCHMARKS_PAGE.write_text(benchmarks_page(), encoding="utf-8")
    for name, record in benchmarks().items():
        (PICTURES / f"{name}.png").write_bytes(draw(record))
    print(PAGE, BENCHMARKS_PAGE)


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
