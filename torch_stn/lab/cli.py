"""The `stn` command. Heavy imports happen inside commands only, so that `stn --help` answers at once."""

from pathlib import Path
from typing import Annotated

import typer

from torch_stn._version import __version__
from torch_stn.lab import experiments  # plain data
from torch_stn.lab.errors import UserError
from torch_stn.lab.exits import FOREIGN, INTERRUPTED, fail, one_line_errors

app = typer.Typer(
    name="stn",
    help="Spatial transformer networks: train, evaluate, report.",
    no_args_is_help=True,
    rich_markup_mode=None,  # the framed help takes half a second more
    add_completion=False,
    pretty_exceptions_enable=False,
)
RUNS = Path("runs")


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    """Spatial transformer networks: train, evaluate, report."""
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
@one_line_errors
def train(
    name: Annotated[
        str | None,
        typer.Argument(help=f"An experiment: {', '.join(experiments.names())}."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Replace fields of its config.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="The run folder; default runs/NAME-...")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run of this folder, to its end.")] = None,
) -> None:
    """Train an experiment and evaluate it: stn train table1 model=st-fcn data=r seed=1"""
    if resume is not None and (name or overrides or run):
        raise UserError("--resume RUN goes on with the run's own config: wanted no NAME, KEY=VALUE or --run beside it")
    from torch_stn.lab.config import override

    # What is wrong with the words is said before torch is loaded.
    config = None
    if resume is None:
        if name is None:
            raise UserError(f"NAME: wanted one of {', '.join(experiments.names())}, or --resume RUN")
        config = override(experiments.config(name), overrides or [])

    from torch_stn.lab.console import out
    from torch_stn.lab.run_folder import RunFolder
    from torch_stn.lab.session import free_folder, prepare, run_name, start, train_and_evaluate
    from torch_stn.lab.table import print_results
    from torch_stn.lab.train import Interrupted

    if config is not None:
        fabric, config, source = prepare(config)
        folder = start(config, run if run is not None else free_folder(RUNS, run_name(config)), fabric, source)
    else:
        assert resume is not None
        folder, source, fabric = RunFolder.open(resume), None, None
    try:
        record = train_and_evaluate(folder, source, fabric)
    except Interrupted as stopped:
        fail(f"stopped at step {stopped.step}; go on with: stn train --resume {folder.path}", INTERRUPTED)
    except KeyboardInterrupt:
        fail(f"interrupted; what is trained is saved, go on with: stn train --resume {folder.path}", INTERRUPTED)
    if record is not None:
        print_results(out, [record])
        typer.echo(f"run: {folder.path}")


@app.command()
@one_line_errors
def reproduce(
    table: Annotated[str, typer.Argument(help=f"A table of a paper: {', '.join(experiments.tables())}.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Replace fields of every cell's config.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="ours, ours+ (other networks) or paper.")] = "ours",
    seeds: Annotated[int, typer.Option(help="How many: 3 is seeds 0, 1 and 2.")] = 3,
    cells: Annotated[str | None, typer.Option(metavar="PATTERN,...", help="Only cells like this: 'r-*'.")] = None,
    budget_minutes: Annotated[float | None, typer.Option(help="Stop after so long; the next call goes on.")] = None,
    results: Annotated[Path, typer.Option(help="The folder for results/TABLE/CELL-SEED.json.")] = Path("results"),
) -> None:
    """Train what is missing of a paper's table: stn reproduce table1 --cells 'r-*' --budget-minutes 30"""
    from torch_stn.lab.jobs import plan

    jobs = plan(experiments.table(table), overrides or [], recipe, seeds, cells)
    if budget_minutes is not None and not budget_minutes > 0:
        raise UserError(f"--budget-minutes: wanted a number above 0, got {budget_minutes:g}")

    from torch_stn.lab.console import say
    from torch_stn.lab.reproduce import reproduce as run
    from torch_stn.lab.train import Interrupted

    seconds = {} if budget_minutes is None else {"seconds": 60 * budget_minutes}
    try:
        outcome = run(jobs, RUNS / "reproduce", results, say, **seconds)
    except (Interrupted, KeyboardInterrupt):
        fail("interrupted; what is trained is saved, the same command goes on", INTERRUPTED)
    counts = {"done": outcome.done, "were there": outcome.were_there, "with another process": outcome.elsewhere}
    counts |= {"failed": outcome.failed, "left": outcome.left}
    typer.echo(", ".join(f"{len(each)} {word}" for word, each in counts.items() if each))
    for job in outcome.left:
        typer.echo(f"left: {job.name}")
    if outcome.failed:
        fail(f"failed: {', '.join(job.name for job in outcome.failed)}", FOREIGN)


@app.command()
@one_line_errors
def evaluate(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    accelerator: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Evaluate the last checkpoint of runs: error over fixed distortions of the test set, residual pose, variance."""
    from torch_stn.lab.config import Config
    from torch_stn.lab.console import out
    from torch_stn.lab.evaluate import evaluate as measure
    from torch_stn.lab.processes import launch
    from torch_stn.lab.run_folder import RunFolder
    from torch_stn.lab.table import print_results

    folders = [RunFolder.open(run) for run in runs]
    device = launch(Config(accelerator=accelerator)).device
    print_results(out, [measure(folder, device) for folder in folders])


@app.command()
@one_line_errors
def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run folder, or a network of the zoo.")],
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Image files, folders of them, or - (standard input); or tar shards."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="A file, CSV or JSON by its ending; without it CSV on the screen. Of shards a folder."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Shards at once, each in a process.")] = 1,
    crops: Annotated[Path | None, typer.Option(help="A folder for what the transformers cut out, as PNGs.")] = None,
    accelerator: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Classify images with a trained network: file, class, probability. Digits: light on dark or dark on light."""
    from torch_stn.lab.config import Config
    from torch_stn.lab.console import say
    from torch_stn.lab.predict import predict as look_at
    from torch_stn.lab.predict import write_predictions
    from torch_stn.lab.predict_shards import predict_shards, shards_among
    from torch_stn.lab.processes import launch

    shards = shards_among(paths, out, crops, workers)
    device = launch(Config(accelerator=accelerator)).device
    if shards and out is not None:
        done = predict_shards(model, shards, out, workers=workers, device=device)
        typer.echo(f"{out}: {len(done.done):,} shards done, {len(done.were_there):,} were there")
        if done.left:
            fail(f"not done, unreadable or in another process's hands: {', '.join(done.left[:20])}", FOREIGN)
        return
    rows = look_at(model, [Path(path) for path in paths], say, device=device, crops=crops)
    text = write_predictions(rows, out)
    if text is not None:
        typer.echo(text, nl=False)


@app.command()
@one_line_errors
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of stn train folder.")],
    format: Annotated[str, typer.Option(help="onnx or torch.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="The file; default RUN/model.onnx or RUN/model.pt2.")] = None,
) -> None:
    """Write a run as one file that other programs run: bytes of pixels in, probabilities out."""
    from torch_stn.lab.export import export as write

    path, difference = write(run, format, out)
    typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, differs from the network by at most {difference:.1e}")


@app.command()
@one_line_errors
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders; or one folder of results.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write; of results also .md.")] = Path("report.html"),
) -> None:
    """Make one self-contained HTML file of runs: table, curves, and pictures of where the transformers look; or of a
    folder of results: the papers' tables with ours beside them.
    """
    from torch_stn.lab.report.page import build_report
    from torch_stn.lab.report.reproductions import build_results_page
    from torch_stn.lab.report.results import is_folder_of_results

    of_results = len(runs) == 1 and is_folder_of_results(runs[0])
    typer.echo(f"report: {build_results_page(runs[0], out) if of_results else build_report(runs, out)}")


@app.command()
@one_line_errors
def demo(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="For every run of it.")] = None,
    run: Annotated[Path, typer.Option(help="The folder of the demo; an earlier demo in it is replaced.")] = RUNS
    / "demo",
) -> None:
    """A few minutes: FCN, ST-FCN and ST-CNN on distorted digits, a table, a page of pictures."""
    from torch_stn.lab.console import out
    from torch_stn.lab.demo import make_demo
    from torch_stn.lab.table import print_results
    from torch_stn.lab.train import Interrupted

    try:
        records, page, animation = make_demo(run, overrides or [])
    except Interrupted as stopped:
        fail(f"stopped at step {stopped.step}; stn demo starts afresh", INTERRUPTED)
    print_results(out, records)
    typer.echo(f"animation: {animation}\nreport: {page}")


@app.command()
@one_line_errors
def bench(
    suite: Annotated[str, typer.Option(help="cpu or gpu.")] = "cpu",
    against: Annotated[str, typer.Option(help="Rivals, separated by commas.")] = "aten,compile,kornia,opencv",
    cases: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Only cases like this: '*tps*,overhead'.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few rounds: a look, not a measurement.")] = False,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the record.")] = None,
    picture: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the record, a PNG.")] = None,
) -> None:
    """Measure our samplers against others in one run: parity first, then times, memory, errors; losses are told too."""
    from torch_stn.lab.bench.command import bench as run

    run(suite, against, cases, quick, {"--json": json, "--picture": picture})


@app.command()
@one_line_errors
def doctor() -> None:
    """Versions, devices, which backend serves what and why not, which data sets are at hand."""
    from torch_stn.lab.doctor import examine

    examine()


def main() -> None:
    """The entry point of the command."""
    app()
