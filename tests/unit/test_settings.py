"""Settings: one flat mapping whatever way they are written, and layers that are laid over one another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import flat_settings

from package.runs.settings import (
    Settings,
    SettingsError,
    did_you_mean,
    flatten,
    parse_arguments,
    parse_value,
    read,
    same_class,
    unflatten,
)


@given(flat_settings())
def test_flat_and_nested_say_the_same(flat):
    assert flatten(unflatten(flat)) == flat
    assert unflatten(flatten(unflatten(flat))) == unflatten(flat)


@given(flat_settings(), st.randoms())
def test_the_order_of_short_keys_does_not_matter(flat, random):
    shuffled = list(flat.items())
    random.shuffle(shuffled)
    assert unflatten(dict(shuffled)) == unflatten(flat)


def test_all_forms_of_writing_are_the_same():
    flat = {"model.network": "my.Net", "model.network.width": 32}
    for written in (
        {"model": {"network": {"class_path": "my.Net", "init_args": {"width": 32}}}},
        {"model": {"init_args": {"network": {"class_path": "my.Net", "init_args": {"width": 32}}}}},
        {"model.network": "my.Net", "model.network.width": 32},
        {"model.init_args.network.class_path": "my.Net", "model.init_args.network.init_args.width": 32},
        {"model.network": {"class_path": "my.Net", "width": 32}},
    ):
        assert flatten(written) == flat, written


def test_what_a_class_passes_on_stays_beside_its_settings():
    nested = {"network": {"class_path": "my.Net", "init_args": {"width": 1}, "dict_kwargs": {"extra": 2}}}
    assert flatten(nested) == {"network": "my.Net", "network.width": 1, "network.dict_kwargs.extra": 2}
    assert unflatten(flatten(nested)) == nested


@pytest.mark.parametrize(
    "text, value",
    [("1e-3", 0.001), ("1E5", 1e5), (".5", 0.5), ("-2e-1", -0.2), ("3", 3), ("true", True), ("null", None)]
    + [("[1, 2e-3]", [1, 0.002]), ("{a: 1}", {"a": 1}), ("a: [", "a: ["), ("e5", "e5"), ("1e", "1e"), ("v1.2", "v1.2")],
)
def test_values_are_read_as_numbers_where_a_person_means_numbers(text, value):
    assert parse_value(text) == value and type(parse_value(text)) is type(value)


def test_values_make_no_objects():
    assert parse_value("!!python/object/apply:os.getcwd []") == "!!python/object/apply:os.getcwd []"


def test_command_lines():
    line = "--data.batch_size 8 --model.lr=1e-3 --compile --model.init_args.network.class_path my.Net --shift -1"
    assert parse_arguments(line.split()) == {
        "data.batch_size": 8, "model.lr": 0.001, "compile": True, "model.network": "my.Net", "shift": -1,
    }  # fmt: skip
    assert parse_arguments(["--n", "1", "--n", "2"]) == {"n": 2}
    assert parse_arguments(["--list+=A", "--list+", "B"]) == {"list+": ["A", "B"]}


def test_a_class_written_as_yaml_on_the_command_line_is_flattened():
    typed = parse_arguments(["--model.network", "{class_path: my.Net, init_args: {width: 3}}"])
    assert typed == {"model.network": "my.Net", "model.network.width": 3}


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: [1", "is not valid YAML"),
        ("- 1\n- 2", "found a list"),
        ("just words", "found a str"),
        ("a: 1\nb: {c: 1, c: 2}", "c is there twice"),
        ("a: \x00", "YAML"),
    ],
)
def test_unreadable_files_are_named(tmp_path, text, message):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message) as error:
        read(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_no_text(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="binary.yaml"):
        read(tmp_path / "binary.yaml")
    with pytest.raises(SettingsError, match="can't be read: Is a directory"):
        read(tmp_path)


def test_an_empty_file_changes_nothing(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read(tmp_path / "empty.yaml") == {}


BASE = {
    "model": "my.Classifier", "model.smoothing": 0.0, "model.network": "my.Net", "model.network.width": 32,
    "model.optimizer": "torch.optim.AdamW", "model.optimizer.lr": 0.1, "model.optimizer.weight_decay": 0.01,
    "cka": "my.CKA", "cka.reference": "init", "trainer.max_epochs": 5, "trainer.callbacks": ["A"],
}  # fmt: skip


def layered(*layers):
    settings = Settings()
    settings.add(BASE, "base.yaml")
    for number, layer in enumerate(layers):
        settings.add(layer, f"layer {number}")
    return settings


def test_the_later_layer_wins_and_is_remembered():
    settings = layered({"model.optimizer.lr": 0.2}, {"model.optimizer.lr": 0.3})
    assert settings.flat == {**BASE, "model.optimizer.lr": 0.3}
    assert settings.source["model.optimizer.lr"] == "layer 1"
    assert settings.source["trainer.max_epochs"] == "base.yaml"


def test_another_class_inherits_no_settings():
    flat = layered({"model.optimizer": "torch.optim.SGD", "model.optimizer.lr": 0.5}).flat
    assert {k: v for k, v in flat.items() if "optimizer" in k} == {
        "model.optimizer": "torch.optim.SGD", "model.optimizer.lr": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_the_order_of_a_class_and_its_settings_does_not_matter(order):
    layer = dict(list({"model.optimizer": "torch.optim.SGD", "model.optimizer.lr": 0.5}.items())[order])
    assert layered(layer).flat["model.optimizer.lr"] == 0.5


def test_the_same_class_by_its_short_name_keeps_its_settings():
    assert layered({"model.optimizer": "AdamW"}).flat["model.optimizer.weight_decay"] == 0.01


def test_another_model_or_data_class_may_keep_its_settings():
    settings = layered({"model": "my.Other", "model.smoothing": 0.1})
    assert settings.flat["model.network.width"] == 32
    assert settings.inherited == {k for k in BASE if k.startswith("model.")} - {"model.smoothing"}


def test_null_switches_a_class_off_with_all_its_settings():
    flat = layered({"cka": None}).flat
    assert flat["cka"] is None and "cka.reference" not in flat
    assert unflatten(flat)["cka"] is None


@pytest.mark.parametrize("section", ["trainer", "model"])
def test_an_empty_section_changes_nothing(section):
    assert layered({section: None}).flat == BASE


def test_plus_appends_to_a_list():
    appended = layered({"trainer.callbacks+": ["B", "C"]}, {"trainer.callbacks+": "D"})
    assert appended.flat["trainer.callbacks"] == ["A", "B", "C", "D"]
    assert layered({"new+": ["B"]}).flat["new"] == ["B"]
    assert BASE["trainer.callbacks"] == ["A"]


def test_same_class():
    assert same_class("SGD", "torch.optim.SGD") and same_class("torch.optim.SGD", "SGD")
    assert not same_class("GD", "torch.optim.SGD") and not same_class("my.SGD", "torch.optim.SGD")
    assert same_class(3, 3) and not same_class(3, None)


def test_did_you_mean():
    assert did_you_mean("trainer.max_epoch", ["trainer.max_epochs", "name"]) == " (did you mean trainer.max_epochs?)"
    assert did_you_mean("xyz", ["trainer.max_epochs"]) == ""
