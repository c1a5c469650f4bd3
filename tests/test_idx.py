"""IDX files: what is read, and every way in which a file can be wrong."""

import gzip
import hashlib
import struct
import tracemalloc

import numpy as np
import pytest

from torch_stn.lab.data.idx import MOST_BYTES, read_idx
from torch_stn.lab.errors import UserError


def idx_bytes(array, code=0x08):
    header = struct.pack(">BBBB", 0, 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def write(tmp_path):
    def write(content, name="some-idx"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


PICTURES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("code", "dtype"), [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")]
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gzip"])
def test_reads_every_type_raw_and_gzipped(write, code, dtype, pack):
    array = np.arange(-6, 6).astype(dtype).reshape(3, 4)
    path = write(pack(idx_bytes(array, code)))
    read = read_idx(path)
    np.testing.assert_array_equal(read, array)
    assert read.dtype == np.dtype(dtype)
    assert read.dtype.isnative
    assert read.flags.writeable


def test_the_name_does_not_tell_whether_it_is_gzipped(write):
    np.testing.assert_array_equal(read_idx(write(idx_bytes(PICTURES), "x.gz")), PICTURES)
    np.testing.assert_array_equal(read_idx(write(gzip.compress(idx_bytes(PICTURES)), "x")), PICTURES)


def test_a_checksum_of_the_raw_bytes(write):
    raw = idx_bytes(PICTURES)
    md5 = hashlib.md5(raw).hexdigest()
    for path in (write(raw, "a"), write(gzip.compress(raw, 1), "b"), write(gzip.compress(raw, 9), "c")):
        read_idx(path, md5=md5)
    with pytest.raises(UserError, match=rf"a: the checksum differs .*{md5}.*wanted {'0' * 32}"):
        read_idx(write(raw, "a"), md5="0" * 32)


RAW = idx_bytes(PICTURES)
PACKED = gzip.compress(RAW)
WRONG = {
    "empty": (b"", "the file is empty"),
    "empty gzip": (gzip.compress(b""), "the file is empty"),
    "two bytes": (b"\0\0", r"starts with bytes 00 00, wanted an IDX file"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(50), r"starts with bytes 89 50 4e 47 \(a PNG picture\), wanted an IDX file"),
    "html": (b"<!DOCTYPE html><html>404</html>", r"\(an HTML or XML page\)"),
    "zip": (b"PK\x03\x04" + bytes(50), r"\(a ZIP archive\)"),
    "pickle": (b"\x80\x04\x95" + bytes(50), r"\(a Python pickle\)"),
    "foreign in gzip": (gzip.compress(b"<html>"), r"\(an HTML or XML page\)"),
    "text": (b"hello, world", r"starts with bytes 68 65 6c 6c, wanted"),
    "unknown type": (b"\0\0\x0a\x01" + RAW[4:], "IDX type 0a is unknown, wanted one of 08, 09"),
    "no dimensions": (b"\0\0\x08\0", "announces 0 dimensions"),
    "header cut": (RAW[:10], "announces 3 dimensions but holds 1 of their sizes"),
    "header only": (RAW[:16], "cut short after 0 bytes of data, the header announces 2x3x4 = 24 bytes"),
    "data cut": (RAW[:-5], "cut short after 19 bytes of data"),
    "data cut in gzip": (gzip.compress(RAW[:-5]), "cut short after 19 bytes of data"),
    "data too long": (RAW + b"\0", "more data than the 24 bytes"),
    "data too long in gzip": (gzip.compress(RAW + b"\0"), "more data than the 24 bytes"),
    "gzip cut": (PACKED[:-12], "broken gzip file"),
    "gzip without its check": (PACKED[:-3], "broken gzip file"),
    "gzip of other content": (PACKED[:-8] + bytes(8), "broken gzip file"),
    "gzip broken inside": (PACKED[:12] + b"\xff\xff\xff\xff" + PACKED[16:], "broken gzip file"),
    "gzip with a tail": (PACKED + b"<html>", "broken gzip file"),
    "gzip magic only": (b"\x1f\x8b", "broken gzip file"),
    "gzip of another method": (b"\x1f\x8b\x07" + bytes(20), "broken gzip file"),
    "lying header": (struct.pack(">BBBBIII", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "wanted at most"),
    "255 dimensions": (b"\0\0\x08\xff" + b"\xff\xff\xff\xff" * 255, "wanted at most"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_one_line_that_names_it(write, case):
    content, words = WRONG[case]
    path = write(content)
    with pytest.raises(UserError, match=words) as caught:
        read_idx(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such file, wanted an IDX file"):
        read_idx(tmp_path / "nowhere")
    with pytest.raises(UserError, match="cannot be read"):
        read_idx(tmp_path)


def peak_of_reading(path):
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            read_idx(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_header_that_announces_too_little_of_a_bomb_costs_no_memory(write):
    bomb = idx_bytes(PICTURES) + bytes(200_000_000)
    path = write(gzip.compress(bomb, 1))
    del bomb
    assert peak_of_reading(path) < 20_000_000


def test_a_header_that_announces_what_is_not_there_costs_no_memory(write):
    header = struct.pack(">BBBBI", 0, 0, 8, 1, MOST_BYTES)
    assert peak_of_reading(write(header + bytes(1000))) < 20_000_000
    assert peak_of_reading(write(gzip.compress(header + bytes(1000)))) < 20_000_000
