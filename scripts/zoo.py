"""Add a run's network to the zoo that comes with the package (torch_stn/lab/zoo).

python scripts/zoo.py keep RUN NAME      # NAME.safetensors, NAME.json, NAME.md

Weights of more than 1 MB are kept in half precision. What is measured is what is kept: the error in the card is that of
the weights as they lie in the file.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from torch_stn.lab import models, zoo
from torch_stn.lab.config import Config
from torch_stn.lab.data.load import Source
from torch_stn.lab.errors import UserError
from torch_stn.lab.evaluate import evaluate
from torch_stn.lab.report.files import write_whole
from torch_stn.lab.run_folder import RunFolder

LIMIT = 1_000_000  # bytes of the weights' file
POSE = (("rotation_deg", "rotation, degrees"), ("shift_px", "shift, pixels"), ("log_scale", "log-scale"))


def keep(run: Path, name: str, source: Source | None = None) -> Path:
    """Write the three files; returns the weights'."""
    folder = RunFolder.open(run)
    config, seconds = folder.config(), [row["seconds"] for row in folder.metrics() if "seconds" in row]
    if config.photos:
        raise UserError(f"{run}: learned from images, wanted a run on digits")
    if not name.replace("-", "").isalnum() or name != name.lower():
        raise UserError(f"NAME: wanted small letters, digits and hyphens, got {name!r}")
    data, half = packed(folder.load_weights())
    weights = safetensors.torch.load(data)
    environment = folder.read_json("environment.json", missing="has no environment.json")
    with tempfile.TemporaryDirectory() as scratch:
        kept = RunFolder.create(Path(scratch) / "run", config, environment)
        step = int(folder.checkpoints()[-1].name.removeprefix("step-"))
        kept.save_checkpoint(step, weights, {})
        evaluation = evaluate(kept, source=source) | {"train_seconds": max(seconds, default=0.0)}
    record = {
        "format": zoo.FORMAT,
        "half": half,
        "config": folder.read_json("config.json", missing=""),
        "environment": environment,
        "evaluation": evaluation,
    }
    write_whole(zoo.FOLDER / f"{name}.md", card(name, config, record, len(data)).encode())
    write_whole(zoo.FOLDER / f"{name}.json", (json.dumps(record, indent=1) + "\n").encode())
    return write_whole(zoo.FOLDER / f"{name}.safetensors", data)


def packed(weights: dict[str, Tensor]) -> tuple[bytes, bool]:
    """The bytes of the weights' file, and whether they are in half precision."""
    for half, dtype in ((False, torch.float32), (True, torch.float16)):
        plain = {key: value.to(dtype) if value.is_floating_point() else value for key, value in weights.items()}
        data = safetensors.torch.save(plain)
        if len(data) <= LIMIT:
            return data, half
    raise UserError(f"the weights take {len(data):,} bytes in half precision, wanted at most {LIMIT:,}")


def card(name: str, config: Config, record: dict[str, Any], size: int) -> str:
    """The card, from the record alone."""
    evaluation, environment = record["evaluation"], record["environment"]
    spreads = [
        f"* {word} within a class, before -> after the transformer: {pair['before']:.2f} -> {pair['after']:.2f}"
        for key, word in POSE
        if (pair := (evaluation["pose"] or {}).get(key))
    ]
    facts = [
        f"* network: {models.label(config)}, {evaluation['parameters']:,} parameters, "
        f"{size:,} bytes in {'half' if record['half'] else 'single'} precision",
        f"* error: {evaluation['error']:.2f} ± {evaluation['error_sd']:.2f} % over {evaluation['distortions']} fixed "
        f"distortions of the test digits, {evaluation['test_images']:,} pictures in all",
        *spreads,
        f"* trained on {evaluation['digits']} for {evaluation['train_steps']:,} steps of {config.batch_size}, "
        f"{evaluation['train_seconds']:.0f} s on {environment['device']}, torch {environment['torch']}, "
        f"seed {config.seed}",
    ]
    use = [f'    torch_stn.lab.zoo.load("{name}")', f"    stn predict {name} IMAGE..."]
    return (
        "\n".join([f"# {name}", "", f"Digits under the distortion {evaluation['set']}.", "", *facts, "", *use]) + "\n"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    keeping = parser.add_subparsers(dest="verb", required=True).add_parser("keep")
    keeping.add_argument("run", type=Path)
    keeping.add_argument("name")
    arguments = parser.parse_args()
    try:
        print(keep(arguments.run, arguments.name))
    except UserError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
