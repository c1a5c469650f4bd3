"""How `scripts/gpu.py` measures: nothing unwritten, wrong or skipped passes; what is held as a graph, what a floor is."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gpu_goals import device as devices
from gpu_goals import exactness, peaks, processes, speed, training
from gpu_goals.device import Device, Times, poisoned
from gpu_goals.lines import NotRunError, WrongError

from torch_stn.lab.bench.cases import Case
from torch_stn.lab.bench.contenders import Contender, ours
from torch_stn.lab.bench.inputs import make

SMALL = Case("small", (2, 3, 7, 9), (5, 8))


def test_the_floor_is_the_bytes_over_the_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    device, case = Device(tiny=True), replace(SMALL, image=(2, 3, 7, 9), size=(7, 9))
    monkeypatch.setattr(speed, "mine", ours)
    monkeypatch.setattr(device, "ready", lambda case: [make(case)])
    picture = 2 * 3 * 7 * 9 * 4
    monkeypatch.setattr(device, "times", lambda calls: Times({"ours": 4.0, "eager": 8.0}, picture, "loose"))
    (forward,), (backward,) = speed._forward(device, case), speed._backward(device, case)
    assert (forward.value, backward.value) == (2 / 4, 3 / 4)
    assert forward.note == "4e+06 µs, eager 2 x as long; loose"
    (alone,) = speed._backward(device, replace(case, gradients=("image",)))
    assert alone.value == 2 / 4
    (given,) = speed._forward(device, replace(case, family="points"))
    assert given.value == (2 + 2 / 3) / 4


def test_memory_that_nobody_wrote_is_no_number() -> None:
    with poisoned():
        assert torch.empty(3).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("flaw", ["none", "unwritten", "off"])
def test_only_what_is_right_is_ready(flaw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def flawed(inputs: Any, *, deterministic: bool = True) -> Contender:
        right = ours(inputs).read

        def read(image: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
            picture = right(image, theta)
            if flaw == "unwritten":  # on most days such memory holds what the same call left there
                return torch.cat([picture[:1], torch.empty_like(picture[1:])])
            return picture * (1.01 if flaw == "off" else 1)

        return Contender("stn", read, inputs)

    said = {"unwritten": "nan", "off": r"1\.0e-02"}
    monkeypatch.setattr(devices, "mine", flawed)
    device = Device(tiny=True)
    for _ in range(2):
        if flaw == "none":
            first, second = device.ready(SMALL)[0], device.ready(SMALL)[0]
            assert not torch.equal(first.image, second.image)
        else:
            with pytest.raises(WrongError, match=rf"picture of stn .* is off by {said[flaw]} "):
                device.ready(SMALL)


class Recorded:
    """Stands for a CUDA graph: it replays by writing some numbers into the results of the calls."""

    written: Any = 1.0

    def replay(self) -> None:
        for result in self.results:
            result[:1].fill_(self.written)

    results: list[torch.Tensor] = []  # noqa: RUF012


@pytest.mark.parametrize(
    ("length", "trouble", "outcome"), [(1, "", "held"), (2, "", "unwritten"), (1, "not permitted\n...", "loose")]
)
def test_calls_become_a_graph_or_say_why_not(
    length: int, trouble: str, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.Tensor] = []

    def call() -> tuple[torch.Tensor]:
        made.append(torch.ones(length))
        return (made[-1],)

    @contextmanager
    def recording(graph: Recorded, stream: object) -> Iterator[None]:
        yield
        graph.results = made[-2:]
        if trouble:
            raise RuntimeError(trouble)

    device = Device(tiny=True)
    device.tiny = False
    for name, value in {"CUDAGraph": Recorded, "graph": recording}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    for name in ("current_stream", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    if outcome == "unwritten":
        with pytest.raises(WrongError, match="does not write all"):
            device._held([call, call])
        return
    run, why = device._held([call, call])
    before = len(made)
    run()
    assert (len(made) - before, why) == {"held": (0, ""), "loose": (2, "not permitted")}[outcome]


def test_times_are_those_of_one_call() -> None:
    device = Device(tiny=True)
    times = device.times({"short": [lambda: time.sleep(1e-3)] * 3, "long": [lambda: time.sleep(6e-3)]})
    assert 1e-3 <= times.seconds["short"] < 3e-3 < 6e-3 <= times.seconds["long"]
    assert times.bandwidth == device.copied / times.seconds["copy"]
    assert times.floor(times.bandwidth) == 1


def test_without_a_sampler_the_gradients_still_go_their_ways() -> None:
    image, theta = torch.rand(2, 1, 4, 4, requires_grad=True), torch.rand(2, 6, requires_grad=True)
    picture = training.Unmoved.apply(image, theta)
    assert torch.equal(picture, image)
    pull = torch.rand_like(picture)
    to_image, to_theta = torch.autograd.grad(picture, (image, theta), pull)
    assert torch.equal(to_image, pull)
    assert torch.equal(to_theta, pull.flatten(1)[:, :6])


def test_bits_that_change_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(tiny=True)
    device.runs = 4
    results = iter([(torch.zeros(2), torch.tensor([float(n == 2)])) for n in range(4)])
    monkeypatch.setattr(exactness, "mine", lambda inputs: SimpleNamespace(both=lambda: next(results)))
    monkeypatch.setattr(device, "ready", lambda case: [None])
    assert [got.value for got in exactness._same_bits(device, SMALL)] == [4, 3]


def test_memory_is_counted_in_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    device, case = Device(tiny=True), replace(SMALL, dtype="bfloat16")
    device.tiny = False
    monkeypatch.setattr(peaks, "mine", ours)
    monkeypatch.setattr(device, "ready", lambda case: [make(case)])
    picture = 2 * 3 * 5 * 8 * 2
    found = {"stn": {"forward": picture, "both": 3 * picture}, "aten": {"forward": 5 << 20, "both": 7 << 20}}
    monkeypatch.setattr(peaks, "cuda_peaks", lambda contenders: {one.name: found[one.name] for one in contenders})
    forward, both = peaks._peaks(device, case)
    assert (forward.value, both.value) == (1, 3)
    assert [got.note for got in (forward, both)] == ["0 MiB, eager 5 MiB", "0 MiB, eager 7 MiB"]


# Child processes


@pytest.mark.parametrize(
    ("code", "said", "value", "words"),
    [
        (0, "..\n82 passed in 60.00s (0:01:00)\n", 0, "82 passed in 60.00s (0:01:00)"),
        (0, "82 skipped in 1.00s\n", 1, "82 skipped in 1.00s"),
        (0, "81 passed, 1 skipped in 1.00s\n", 1, "81 passed, 1 skipped in 1.00s"),
        (1, "1 failed, 81 passed in 60.00s\n", 1, "1 failed, 81 passed in 60.00s"),
        (9, "9 passed in 6.0s\n==== ERROR SUMMARY: 2 errors\n", 9, "9 passed in 6.0s; ERROR SUMMARY: 2 errors"),
        (4, "ERROR: not found\n", 4, "ERROR: not found"),
        (0, "", 1, "no word"),
    ],
)
def test_a_suite_has_passed_where_tests_have(
    code: int, said: str, value: float, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_ended", lambda *_: (code, said.splitlines()))
    (got,) = processes._tests(Device(tiny=True), ["pytest"])
    assert (got.value, got.words) == (value, words)


def test_the_memory_checker_runs_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(tiny=True)
    (task,) = processes.checker(device)
    with pytest.raises(NotRunError, match="on a GPU"):
        task.measure()
    device.tiny = False
    monkeypatch.setattr(processes.shutil, "which", lambda name: None)
    with pytest.raises(NotRunError, match="there is no compute-sanitizer on the PATH"):
        task.measure()
    ran: list[Any] = []
    monkeypatch.setattr(processes.shutil, "which", lambda name: name)
    monkeypatch.setattr(processes, "_ended", lambda *words: ran.append(words) or (0, ["3 passed in 1.0s"]))
    assert [got.value for got in task.measure()] == [0]
    ((words, seconds, environment),) = ran
    assert words[:5] == ["compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "9"]
    assert words[words.index("-k") + 1] == processes.FEW
    assert 0 < seconds <= processes.PATIENCE
    assert environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1"


def test_a_child_that_takes_too_long_is_ended_with_its_children() -> None:
    sleeps = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    begun = time.monotonic()
    with pytest.raises(NotRunError, match="had not ended after 1 s"):
        processes._ended([sys.executable, "-c", sleeps], 1.0, dict(os.environ))
    assert time.monotonic() - begun < 30  # a grandchild that lived on would hold the pipe
