"""The report on made-up run folders: complete, self-contained, escaped, honest."""

from __future__ import annotations

import base64
import itertools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence
from synthetic_run import write_run

from torch_stn.lab.errors import UserError
from torch_stn.lab.report import build_report, render_alignment_gif
from torch_stn.lab.report.figures import _residual, _running_mean
from torch_stn.lab.report.pictures import finite_pieces, frame, straightened
from torch_stn.lab.report.words import duration, figure

VOID = {"meta", "link", "img", "br", "hr", "input"}
OF_A_TRANSFORMER = ("Where it looks", "being learned", "true pose", "Class means")
HOSTILE = "<script>alert('x')</script>\"'&<img src=x onerror=y> {{ 7*7 }}"


class Page(HTMLParser):
    """What a page holds, with the nesting of its elements checked."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a start"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def has(self, heading: str) -> bool:
        return heading in self.text


# Each test gets its own folder for what it writes; the runs themselves are made once.
@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    return {
        "fcn": write_run(root / "fcn", model="fcn", error=6.2),
        "st-fcn": write_run(root / "st-fcn"),
        "st-cnn": write_run(root / "st-cnn", model="st-cnn", transform="tps", data="r", error=1.2, snapshots=9),
        "new": write_run(root / "new", transform="projective", evaluated=False),
    }


@pytest.fixture(scope="module")
def three(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report([runs["fcn"], runs["st-fcn"], runs["st-cnn"]], tmp_path_factory.mktemp("page") / "report.html")


def assert_self_contained(page: Page) -> None:
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action", "xlink:href", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), f"{name}={value[:80]}"
        assert not any(name.startswith("on") for name in attributes)
    assert "//" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page.source), "an address, or a protocol-relative one"
    assert not re.search(r"url\(|@import", page.source)
    for inner in re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", page.source):
        svg = base64.b64decode(inner).decode("utf-8")
        assert all(link.startswith(("data:", "#")) for link in re.findall(r'href="([^"]*)', svg))


def test_three_runs(three: Path) -> None:
    page = Page(three)
    assert_self_contained(page)
    assert three.stat().st_size < 6_000_000
    for part in ("The runs", "Loss and error", *OF_A_TRANSFORMER, "Worst mistakes", "Confusion"):
        assert page.has(part), part
    images, svgs = page.all("img"), page.all("svg")
    assert len(images) == 4 + 4 + 1  # curves; four poses on RTS; rotation only on R
    assert all(len(image["alt"] or "") > 20 for image in images)
    assert all(svg.get("aria-label") or svg.get("aria-hidden") == "true" for svg in svgs)
    assert len(page.all("image")) >= 2 * (12 * 2 + 12 * 2 * 6 + 20 + 18 * 2) + 18
    assert all(re.search(r"\d", path["d"] or "") for path in page.all("path"))
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("meta")[1]["name"] == "viewport"
    anchors = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {f"#{anchor}" for anchor in anchors} >= {link["href"] for link in page.all("a")}
    assert len(anchors) == sum("id" in attributes for _, attributes in page.elements)
    assert all("scope" in head for head in page.all("th"))
    assert "269,000" in page.text
    text = page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "FCN, its twin without a transformer, 6.20 % (both trained for 60 s)" in text
    assert "From class labels alone it learned to turn, shift and scale the digits upright: within a class, " in text
    assert "the spread of rotation went from 26.0° to 9.1°, that of shift went from 4.5 px to 1.1 px and " in text


def test_the_same_folders_give_the_same_bytes(runs: dict[str, Path], tmp_path: Path) -> None:
    first = build_report([runs["st-fcn"]], tmp_path / "a.html").read_bytes()
    assert first == build_report([runs["st-fcn"]], tmp_path / "b.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_without_a_transformer(runs: dict[str, Path], tmp_path: Path) -> None:
    page = Page(build_report([runs["fcn"]], tmp_path / "report.html"))
    assert_self_contained(page)
    assert page.has("Digits without a spatial transformer")
    assert page.has("Confusion matrix")
    assert page.has("Worst mistakes")
    for part in (*OF_A_TRANSFORMER, "Residual", "learned to"):
        assert not page.has(part), part


def test_not_evaluated(runs: dict[str, Path], tmp_path: Path) -> None:
    page = Page(build_report([runs["new"]], tmp_path / "report.html"))
    assert_self_contained(page)
    assert page.has("ST-FCN projective has not been evaluated yet")
    assert page.has("not evaluated")
    assert page.has("The alignment being learned")
    assert not page.has("Confusion")
    with pytest.raises(UserError, match="not evaluated, so the test digits are not known"):
        render_alignment_gif(runs["new"], tmp_path / "a.gif")


def test_a_run_of_which_nothing_is_known_but_its_config(tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "config.json").write_text('{"format": 1}')
    page = Page(build_report([folder], tmp_path / "report.html"))
    assert page.has("not evaluated")
    assert not page.has("Loss and error")


def test_an_alignment_that_failed_is_called_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", data="r")
    change(folder / "evaluation.json", pose={"rotation_deg": {"before": 54.3, "after": 53.0}, "shift_px": None})
    text = Page(build_report([folder], tmp_path / "report.html")).text
    assert "It did not learn to align the digits: within a class, the spread of rotation went from 54.3°" in text
    assert "Digits through a spatial transformer" in text


def test_names_are_escaped(tmp_path: Path) -> None:
    label = HOSTILE * 3
    folders = [write_run(tmp_path / "a<b>&'", label=label), write_run(tmp_path / "b", label=label, model="cnn")]
    change(folders[0] / "config.json", note=HOSTILE)
    change(folders[0] / "environment.json", platform=HOSTILE)
    page = Page(build_report(folders, tmp_path / "report.html"))
    assert not page.all("script")
    assert label in page.text
    assert "a<b>&'" in page.text
    assert {image["src"][:11] for image in page.all("img") if image["src"]} == {"data:image/"}
    with Image.open(render_alignment_gif(folders[0], tmp_path / "a.gif")) as animation:
        assert animation.width == 640


@pytest.mark.parametrize("name", ["st-fcn", "st-cnn"])
def test_animation(runs: dict[str, Path], tmp_path: Path, name: str) -> None:
    path = render_alignment_gif(runs[name], tmp_path / "alignment.gif")
    assert path.stat().st_size < 1_500_000
    with Image.open(path) as animation:
        assert 480 <= animation.width <= 640
        frames = [(one.info["duration"], np.asarray(one.convert("L"))) for one in ImageSequence.Iterator(animation)]
        assert animation.info["loop"] == 0
    assert len(frames) >= 8
    assert frames[-1][0] == 2000
    assert all((a[1] != b[1]).any() for a, b in itertools.pairwise(frames))


def test_animation_of_a_run_without_one(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fcn has no spatial transformer"):
        render_alignment_gif(runs["fcn"], tmp_path / "a.gif")
    with pytest.raises(UserError, match="no snapshots"):
        render_alignment_gif(write_run(tmp_path / "short", snapshots=0), tmp_path / "a.gif")


def test_no_run() -> None:
    with pytest.raises(UserError, match="no run folder was given"):
        build_report([], "report.html")


def test_unwritable_destination(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder, a file name was wanted"):
        build_report([runs["fcn"]], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        build_report([runs["fcn"]], tmp_path / "file" / "report.html")


def test_neither_torch_nor_pyplot_is_imported() -> None:
    code = "import sys, torch_stn.lab.report; print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_residual_takes_out_the_class_constant_across_the_turn() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    total = np.array([178.0, -178.0, 180.0, 10.0, 14.0])
    np.testing.assert_allclose(_residual(total, labels, circular=True), [-2, 2, 0, -2, 2], atol=1e-9)
    np.testing.assert_allclose(_residual(total, labels, circular=False)[3:], [-2, 2])


def test_frame_paths() -> None:
    straight = np.stack([np.linspace(0, 10, 7), np.linspace(5, 8, 7)], -1)
    np.testing.assert_array_equal(straightened(straight), straight[[0, -1]])
    bent = straight + np.array([0, 0.3]) * np.sin(np.arange(7))[:, None]
    assert straightened(bent) is bent
    torn = bent.copy()
    torn[3] = np.inf
    assert [len(piece) for piece in finite_pieces(torn)] == [3, 3]
    drawn = frame(np.stack([straight] * 6))
    assert drawn.top == "M0 5L10 8"
    assert (drawn.grid.count("M"), drawn.border.count("M")) == (2, 4)


def test_numbers_in_words() -> None:
    assert [figure(value) for value in (54.321, 123.4, 1.131, 0.155, 0.0621, 0.0)] == [
        "54.3",
        "123",
        "1.1",
        "0.15",
        "0.062",
        "0.00",
    ]
    shown = [duration(value) for value in (0.8, 60.4, 154, 3725, None, float("nan"))]
    assert [text.replace("\N{NO-BREAK SPACE}", " ") for text in shown] == [
        "0.8 s",
        "60 s",
        "2 min 34 s",
        "1 h 02 min",
        "",
        "",
    ]


def test_running_mean_leaves_nan_out() -> None:
    np.testing.assert_allclose(_running_mean(np.array([1.0, np.nan, 3.0, 4.0, 5.0]), 1), [1, 2, 3.5, 4, 5])


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
