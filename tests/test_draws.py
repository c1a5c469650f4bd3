"""Random numbers without state: the same whatever the batch, and good enough to train on."""

import math

import pytest
import torch

from torch_stn.lab.data.draws import batch_indices, draw_bits, epoch_order, integers, normal, uniform

MILLION = 1_000_000
WORD = (1 << 64) - 1


def mix(word):
    """The finaliser of splitmix64 as its authors print it."""
    word &= WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)


def expected_bits(seed, sample, stream, draw):
    golden = 0x9E3779B97F4A7C15
    key = mix(mix(seed + golden) ^ (stream * golden & WORD))
    return mix(mix(key + sample * golden) + (draw + 1) * 0xD1B54A32D192ED03)


def unsigned(bits):
    return [[word & WORD for word in row] for row in bits.tolist()]


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_bits_follow_the_formula_in_the_integers_of_python(seed):
    samples = [0, 1, 2, 60_000, 2**40 + 7]
    for stream in (0, 1, 9, 2**50):
        drawn = unsigned(draw_bits(seed, torch.tensor(samples), stream, 5))
        assert drawn == [[expected_bits(seed, sample, stream, draw) for draw in range(5)] for sample in samples]


def test_golden_values():
    """A change here makes every run that was ever recorded unrepeatable."""
    sample = torch.tensor([0, 1, 123_456_789])
    assert unsigned(draw_bits(0, sample, 1, 2)) == GOLDEN_BITS
    torch.testing.assert_close(uniform(1, sample, 2, 2, -90, 90), torch.tensor(GOLDEN_UNIFORM))
    torch.testing.assert_close(normal(1, sample, 3, 2), torch.tensor(GOLDEN_NORMAL))
    assert integers(1, sample, 4, 3, 33).tolist() == GOLDEN_INTEGERS
    assert epoch_order(0, 0, 10).tolist() == GOLDEN_ORDER


GOLDEN_BITS = [
    [2972038601963232295, 8895981084217438215],
    [15452470789466517965, 8000533311494213793],
    [3847963047761677353, 7140724609873180260],
]
GOLDEN_UNIFORM = [[81.15104675, -63.19449615], [83.71263123, -62.24458694], [17.28672791, 71.53399658]]
GOLDEN_NORMAL = [[-0.92639428, 0.16007294], [-0.53411001, -1.61447906], [-0.16358499, -1.01501167]]
GOLDEN_INTEGERS = [[6, 23, 21], [27, 30, 25], [9, 10, 30]]
GOLDEN_ORDER = [8, 1, 0, 5, 3, 2, 4, 6, 7, 9]

DRAWS = {
    "bits": lambda samples, count: draw_bits(3, samples, 5, count),
    "uniform": lambda samples, count: uniform(3, samples, 5, count, -2, 3),
    "normal": lambda samples, count: normal(3, samples, 5, count, 1, 2),
    "integers": lambda samples, count: integers(3, samples, 5, count, 1000),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_number_depends_on_its_sample_and_place_alone(draw):
    samples = torch.arange(1000, 1300)
    whole = draw(samples, 12)
    shuffled = torch.randperm(300)
    assert torch.equal(draw(samples[shuffled], 12), whole[shuffled])
    assert torch.equal(torch.cat([draw(part, 12) for part in samples.split(7)]), whole)
    assert torch.equal(draw(samples, 5), whole[:, :5])
    assert samples.equal(torch.arange(1000, 1300))  # the argument is left alone


def test_the_first_draw_can_be_named():
    samples = torch.arange(50)
    assert torch.equal(draw_bits(3, samples, 5, 4, first=6), draw_bits(3, samples, 5, 10)[:, 6:])


def chi_square(values, cells):
    """Deviations by which Pearson's statistic is off its mean, for values in [0, 1)."""
    counts = torch.histc(values.double(), cells, 0, 1)
    wanted = len(values) / cells
    statistic = ((counts - wanted) ** 2 / wanted).sum().item()
    return (statistic - (cells - 1)) / math.sqrt(2 * (cells - 1))


@pytest.mark.parametrize(
    "million",
    [
        lambda: uniform(0, torch.arange(MILLION), 1, 1),
        lambda: uniform(7, torch.arange(MILLION // 10), 2, 10),
        lambda: uniform(7, torch.arange(10), 2, MILLION // 10),
        lambda: uniform(0, torch.arange(MILLION) * 256, 1, 1),
        lambda: uniform(0, torch.arange(MILLION) << 32, 1, 1),
        lambda: torch.cat([uniform(seed, torch.arange(1000), 1, 1) for seed in range(1000)]),
        lambda: torch.cat([uniform(0, torch.arange(1000), stream, 1) for stream in range(1000)]),
    ],
    ids=["samples", "rows", "draws", "strided", "high bits", "seeds", "streams"],
)
def test_uniform_is_uniform(million):
    values = million().flatten()
    assert len(values) == MILLION
    assert values.min() >= 0
    assert values.max() < 1
    for cells in (10, 1000):
        assert abs(chi_square(values, cells)) < 4
    assert abs(values.double().mean().item() - 0.5) < 4 * math.sqrt(1 / 12 / MILLION)


@pytest.mark.parametrize("bit", range(0, 64, 7))
def test_each_bit_is_a_fair_coin(bit):
    ones = (draw_bits(0, torch.arange(MILLION // 4), 1, 1) >> bit & 1).double().mean().item()
    assert abs(ones - 0.5) < 4 * 0.5 / math.sqrt(MILLION // 4)


def test_the_bounds_of_uniform():
    values = uniform(0, torch.arange(100_000), 1, 1, -90, 90)
    assert -90 <= values.min() < -89.9
    assert 89.9 < values.max() <= 90
    assert values.dtype == torch.float32


def test_normal_has_the_moments_of_a_normal():
    values = normal(0, torch.arange(MILLION), 1, 1).double()
    assert values.isfinite().all()
    assert abs(values.mean().item()) < 4 / math.sqrt(MILLION)
    assert abs(values.square().mean().item() - 1) < 4 * math.sqrt(2 / MILLION)
    assert abs(values.pow(3).mean().item()) < 4 * math.sqrt(15 / MILLION)
    assert abs(values.pow(4).mean().item() - 3) < 4 * math.sqrt(96 / MILLION)
    assert abs(chi_square(0.5 * (1 + torch.erf(values / math.sqrt(2))).flatten(), 1000)) < 4
    assert 4.3 < values.abs().max().item() < 6.5
    shifted = normal(0, torch.arange(1000), 1, 3, 5.0, 0.5)
    torch.testing.assert_close(shifted, 5 + 0.5 * normal(0, torch.arange(1000), 1, 3))


def test_integers_are_all_there_and_equally_often():
    values = integers(0, torch.arange(MILLION), 1, 1, 33)
    assert values.unique().tolist() == list(range(33))
    assert abs(chi_square((values.flatten() + 0.5) / 33, 33)) < 4
    assert integers(0, torch.arange(1000), 1, 2, 5, low=-5).unique().tolist() == list(range(-5, 5))
    assert integers(0, torch.arange(3), 1, 1, 1).tolist() == [[0], [0], [0]]
    for high in (0, -1, 2**31 + 1):
        with pytest.raises(ValueError, match=f"high {high} came"):
            integers(0, torch.arange(3), 1, 1, high)
    assert integers(0, torch.arange(1000), 1, 1, 2**31).max() > 2**30


SAMPLES = torch.arange(200_000)
NEIGHBOURS = {
    "samples": (lambda draw: draw(0, SAMPLES, 1, 1), lambda draw: draw(0, SAMPLES + 1, 1, 1)),
    "seeds": (lambda draw: draw(0, SAMPLES, 1, 1), lambda draw: draw(1, SAMPLES, 1, 1)),
    "streams": (lambda draw: draw(0, SAMPLES, 1, 1), lambda draw: draw(0, SAMPLES, 2, 1)),
    "seed and stream": (lambda draw: draw(0, SAMPLES, 1, 1), lambda draw: draw(1, SAMPLES, 0, 1)),
    "draws": (lambda draw: draw(0, SAMPLES, 1, 2)[:, :1], lambda draw: draw(0, SAMPLES, 1, 2)[:, 1:]),
    "sample and draw": (lambda draw: draw(0, SAMPLES + 1, 1, 2)[:, :1], lambda draw: draw(0, SAMPLES, 1, 2)[:, 1:]),
}


@pytest.mark.parametrize("draw", [uniform, normal])
@pytest.mark.parametrize("pair", NEIGHBOURS.values(), ids=NEIGHBOURS)
def test_neighbours_are_not_correlated(pair, draw):
    one, other = (numbers(draw).flatten().double() for numbers in pair)
    correlation = torch.corrcoef(torch.stack([one, other]))[0, 1].item()
    assert abs(correlation) < 4 / math.sqrt(len(SAMPLES))
    squares = torch.corrcoef(torch.stack([(one - one.mean()) ** 2, (other - other.mean()) ** 2]))[0, 1].item()
    assert abs(squares) < 4 / math.sqrt(len(SAMPLES))


def test_the_sample_changes_half_of_the_bits():
    bits = draw_bits(0, torch.arange(20_000), 1, 1)
    changed = bits[1:] ^ bits[:-1]
    flips = torch.stack([(changed >> bit & 1).double().mean() for bit in range(64)])
    assert ((flips - 0.5).abs() < 0.02).all()


@pytest.mark.parametrize("n", [1, 2, 1000, 60_000])
def test_an_order_is_a_permutation(n):
    assert torch.equal(epoch_order(0, 0, n).sort().values, torch.arange(n))


def test_orders_differ_by_epoch_and_seed():
    orders = [epoch_order(seed, epoch, 5000) for seed in range(3) for epoch in range(3)]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert (one == other).sum() < 12  # one in common is what chance gives
    assert torch.equal(epoch_order(1, 2, 5000), orders[5])
    places = orders[0].double()
    assert abs(torch.corrcoef(torch.stack([places, torch.arange(5000.0).double()]))[0, 1]) < 0.06


def test_every_permutation_of_four_is_as_likely():
    orders = torch.stack([epoch_order(seed, 3, 4) for seed in range(4800)])
    counts = torch.unique(orders, dim=0, return_counts=True)[1]
    assert len(counts) == 24
    assert ((counts - 200) ** 2 / 200).sum() < 23 + 4 * math.sqrt(46)


def test_batches_walk_through_the_orders():
    n = 10
    orders = torch.cat([epoch_order(4, epoch, n) for epoch in range(6)])
    for start, count in [(0, 10), (3, 4), (8, 5), (0, 60), (9, 1), (10, 1), (5, 42), (30, 0)]:
        assert torch.equal(batch_indices(4, start, count, n), orders[start : start + count])
    whole = batch_indices(4, 17, 30, n)
    assert torch.equal(torch.cat([batch_indices(4, 17, 11, n), batch_indices(4, 28, 19, n)]), whole)


def test_a_batch_is_a_copy():
    batch = batch_indices(4, 0, 5, 10)
    kept = batch.clone()
    batch.zero_()
    assert torch.equal(batch_indices(4, 0, 5, 10), kept)


@pytest.mark.gpu
def test_the_same_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    samples = torch.arange(1000)
    there = samples.cuda()
    assert torch.equal(draw_bits(1, there, 2, 12).cpu(), draw_bits(1, samples, 2, 12))
    assert torch.equal(uniform(1, there, 2, 12, -90, 90).cpu(), uniform(1, samples, 2, 12, -90, 90))
    assert torch.equal(integers(1, there, 2, 12, 33).cpu(), integers(1, samples, 2, 12, 33))
    torch.testing.assert_close(normal(1, there, 2, 12).cpu(), normal(1, samples, 2, 12))
    assert torch.equal(batch_indices(1, 50_000, 256, 60_000, "cuda").cpu(), batch_indices(1, 50_000, 256, 60_000))
