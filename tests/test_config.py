"""Configs: `key=value` words, what a wrong one is answered, and records on disk and back."""

import dataclasses
import json
import math

import pytest

from torch_stn.lab import experiments
from torch_stn.lab.config import CHOICES, Config, check, from_record, override
from torch_stn.lab.errors import UserError

FIELDS = {field.name: getattr(Config(), field.name) for field in dataclasses.fields(Config)}


def message(*words: str) -> str:
    """What a person reads who types these words."""
    with pytest.raises(UserError) as raised:
        override(Config(), words)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_words_replace_fields_with_their_own_type() -> None:
    words = ["seed=3", "learning_rate=1e-2", "epochs=2", "tensorboard=no", "model=st-fcn", "experiment=a=b"]
    config = override(Config(), words)
    changed = {key: value for key, value in dataclasses.asdict(config).items() if value != FIELDS[key]}
    assert changed == {
        "seed": 3,
        "learning_rate": 0.01,
        "epochs": 2.0,
        "tensorboard": False,
        "model": "st-fcn",
        "experiment": "a=b",
    }
    assert type(config.epochs) is float


def test_the_last_word_counts_and_no_word_changes_nothing() -> None:
    assert override(Config(), ["seed=1", "seed=2"]).seed == 2
    assert override(Config(seed=5), []) == Config(seed=5)


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("TRUE", True), ("1", True), ("yes", True), ("False", False), ("0", False)]
)
def test_truth_in_words(text: str, value: bool) -> None:
    assert override(Config(), [f"tensorboard={text}"]).tensorboard is value


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("model=resnet layer=1", "layer: goes with the paper's networks, wanted 0 with model=resnet, got 1"),
        (
            "model=resnet theta_forward=true",
            "theta_forward: goes with the paper's networks, wanted false with model=resnet",
        ),
        (
            "data=volumes shared=true",
            "shared: goes with the paper's networks, wanted false with model=st-cnn data=volumes",
        ),
        ("iterations=2", "iterations: goes with model=resnet or data=volumes, wanted 1 with model=st-cnn, got 2"),
        (
            "looking=resnet",
            "looking: goes with model=resnet or data=volumes, wanted conv with model=st-cnn, got resnet",
        ),
        ("data=volumes series=2", "series: goes with model=resnet, wanted 1 with model=st-cnn data=volumes, got 2"),
    ],
)
def test_what_a_network_would_ignore_is_refused(words: str, line: str) -> None:
    assert message(*words.split()).startswith(line)


@pytest.mark.parametrize("key", FIELDS)
def test_every_field_can_be_given(key: str) -> None:
    value = FIELDS[key]
    assert getattr(override(Config(), [f"{key}={value}"]), key) == value


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("modle=fcn", "model"),
        ("lerning_rate=1", "learning_rate"),
        ("learning-rate=1", "learning_rate"),
        ("batchsize=1", "batch_size"),
        ("step=1", "steps"),
        ("Seed=1", "seed"),
        ("transforms=affine", "transform"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(word: str, nearest: str) -> None:
    text = message(word)
    assert text.startswith(word.split("=")[0])
    assert text.endswith(f"nearest: {nearest}")


def test_a_key_like_none_is_answered_with_all() -> None:
    text = message("qqqqqqqqqqqq=1")
    assert all(key in text for key in FIELDS)


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("model=fnc", "fcn"),
        ("model=st_cnn", "st-cnn"),
        ("data=rst", "rts"),
        ("digits=mnits", "mnist"),
        ("optimizer=adam", "adamw"),
        ("schedule=cosin", "cosine"),
    ],
)
def test_a_wrong_choice_is_answered_with_all_and_the_nearest(word: str, nearest: str) -> None:
    key, value = word.split("=")
    text = message(word)
    assert text.startswith(f"{key}: wanted one of ")
    assert repr(value) in text
    assert text.endswith(f"nearest: {nearest}")
    assert all(choice in text for choice in CHOICES.get(key, ()))


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("steps=abc", "a whole number"),
        ("steps=1e3", "a whole number"),
        ("seed=1.5", "a whole number"),
        ("seed=", "a whole number"),
        ("learning_rate=fast", "a number"),
        ("learning_rate=", "a number"),
        ("tensorboard=perhaps", "true or false"),
    ],
)
def test_a_wrong_type_is_answered_with_the_wanted_one(word: str, wanted: str) -> None:
    key, value = word.split("=")
    assert message(word) == f"{key}: wanted {wanted}, got {value!r}"


@pytest.mark.parametrize(
    "word",
    [
        "batch_size=0", "log_every=0", "checkpoint_every=-1", "steps=-1", "seed=-1", "width=-8", "threads=-1",
        "test_distortions=0", "learning_rate=-1", "learning_rate=nan", "learning_rate=inf", "clip=nan",
        "weight_decay=1e400", "warmup=-0.1", "warmup=1", "warmup=2", "label_smoothing=1.5", "seed=99999999999999999999",
        "momentum=1.5", "devices=0", "nodes=0",
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_refused(word: str) -> None:
    assert message(word).startswith(f"{word.split('=')[0]}: wanted ")


def test_a_run_that_would_never_end_is_refused() -> None:
    assert "would never end" in message("steps=0")
    assert override(Config(), ["steps=0", "seconds=1"]).seconds == 1
    assert override(Config(), ["steps=0", "epochs=0.5"]).epochs == 0.5


@pytest.mark.parametrize("word", ["seed", "", "--seed"])
def test_a_word_without_a_value_is_refused(word: str) -> None:
    assert message(word) == f"{word!r}: wanted key=value"


def test_a_record_comes_back_as_the_same_config() -> None:
    config = override(Config(), ["seed=3", "data=e", "tensorboard=no", "seconds=1.5", "warmup=0.125"])
    record = json.loads(json.dumps({"format": 1, **dataclasses.asdict(config)}))
    assert from_record(record) == config


def test_a_record_may_lack_fields_and_write_floats_as_integers() -> None:
    config = from_record({"format": 1, "seconds": 60, "seed": 2})
    assert config == Config(seconds=60.0, seed=2)
    assert type(config.seconds) is float


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"sede": 1}, "sede: no such key; nearest: seed"),
        ({"seed": "1"}, "seed: wanted int, got '1'"),
        ({"seed": 1.0}, "seed: wanted int, got 1.0"),
        ({"seed": True}, "seed: wanted int, got True"),
        ({"seconds": True}, "seconds: wanted float, got True"),
        ({"seconds": None}, "seconds: wanted float, got None"),
        ({"tensorboard": 1}, "tensorboard: wanted bool, got 1"),
        ({"model": ["fcn"]}, "model: wanted str, got ['fcn']"),
        ({"model": "fnc"}, "nearest: fcn"),
    ],
)
def test_a_record_with_wrong_contents_is_refused(record: dict[str, object], text: str) -> None:
    with pytest.raises(UserError) as raised:
        from_record({"format": 1, **record})
    assert text in str(raised.value)


@pytest.mark.parametrize("key", [key for key, value in FIELDS.items() if type(value) in (int, float)])
def test_every_number_has_a_limit(key: str) -> None:
    assert message(f"{key}=-1").startswith(f"{key}: wanted ")


def test_the_tables_speak_of_fields_that_exist() -> None:
    assert set(CHOICES) <= FIELDS.keys()
    assert all(FIELDS[key] in allowed for key, allowed in CHOICES.items())


@pytest.mark.parametrize("name", experiments.names())
def test_experiments_are_configs_that_hold(name: str) -> None:
    config = experiments.config(name)
    assert check(config) is config
    assert config.experiment == name
    assert math.isfinite(config.learning_rate)


@pytest.mark.parametrize(("name", "hint"), [("tabel1", "; nearest: table1"), ("Demo", "; nearest: demo"), ("x", "")])
def test_an_unknown_experiment_is_answered_with_all_and_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UserError) as raised:
        experiments.config(name)
    assert str(raised.value) == f"NAME: wanted one of {', '.join(experiments.names())}, got {name!r}{hint}"
