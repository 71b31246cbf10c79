"""Settings: one flat mapping whatever way they are written, and layers that are laid over one another."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import flat_settings

from lightning_hpc.settings.command_line import parse_arguments, typed_texts
from lightning_hpc.settings.errors import SettingsError, did_you_mean
from lightning_hpc.settings.flat import flatten, read_settings, unflatten
from lightning_hpc.settings.layers import BASE as BASE_FILE
from lightning_hpc.settings.layers import COMMAND_LINE, Settings, replace_default_length, same_class
from lightning_hpc.settings.yaml_files import parse_value


@settings(deadline=None)
@given(flat_settings())
def test_flat_and_nested_say_the_same(flat):
    assert flatten(unflatten(flat)) == flat
    assert unflatten(flatten(unflatten(flat))) == unflatten(flat)


@settings(deadline=None)
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


@pytest.mark.parametrize("text", ["2026-99-99", "!!int x", "9" * 5000, "{[1]: 2}"])
def test_what_only_looks_like_a_value_is_text(text):
    assert parse_value(text) == text


@pytest.mark.parametrize(
    "text, message", [("&a [*a]", "refers to itself"), ("[" * 1000, "nested too deeply")], ids=["itself", "deep"]
)
def test_a_typed_value_that_has_no_end_is_refused(text, message):
    with pytest.raises(SettingsError, match=f"^a value .*{message}") as error:
        parse_value(text)
    assert len(str(error.value)) < 200


def test_references_are_allowed(tmp_path):
    (tmp_path / "twice.yaml").write_text("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n")
    assert read_settings(tmp_path / "twice.yaml") == {"a.x": 1, "b.x": 1, "c.x": 1, "c.y": 2}


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
        ("a: !!int x", "is not valid YAML"),
        ("a: 2026-99-99", "is not valid YAML: month must be in"),
        ("a: " + "9" * 5000, "is not valid YAML"),
        ("{[1]: 2}", "found unhashable key"),
        ("a: &a {b: *a}", "refers to itself"),
        ("a: &a [1, *a]", "refers to itself"),
        ("a: " + "[" * 1000, "is nested too deeply"),
        ("a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 200)), "is nested too deeply"),
        ("a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]\n" for n in range(1, 12)), "more than 100,000"),
    ],
    ids=lambda text: text[:20],
)
def test_unreadable_files_are_named(tmp_path, text, message):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message) as error:
        read_settings(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_no_text(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="binary.yaml"):
        read_settings(tmp_path / "binary.yaml")
    with pytest.raises(SettingsError, match="can't be read: Is a directory"):
        read_settings(tmp_path)


def test_an_empty_file_changes_nothing(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_settings(tmp_path / "empty.yaml") == {}


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


def test_what_was_set_for_no_class_in_particular_stays_when_the_class_changes():
    """Nothing that was asked for vanishes: the new class has it too, or the parser says that it has not."""
    flat = layered({"model.network.depth": 3}, {"model.network": "my.Other"}).flat
    assert {k: v for k, v in flat.items() if "network" in k} == {"model.network": "my.Other", "model.network.depth": 3}

    # What a file has set together with its class goes with that class, and no class has no settings.
    file = {"model.optimizer": "torch.optim.SGD", "model.optimizer.momentum": 0.9}
    assert "model.optimizer.momentum" not in layered(file, {"model.optimizer": "torch.optim.Adam"}).flat
    assert layered({"model.network.depth": 3}, {"model.network": None}).flat["model.network"] is None
    assert "model.network.depth" not in layered({"model.network.depth": 3}, {"model.network": None}).flat


def test_only_the_first_layer_is_inherited_by_another_model():
    settings = layered({"model.smoothing": 0.2}, {"model": "my.Other"})
    assert "model.network.width" in settings.inherited and "model.smoothing" not in settings.inherited


NAMES_OF_LAYERS = {"block1.conv": 0.1, "head": 0.2}


def test_a_mapping_with_dots_in_its_keys_stays_in_one_piece():
    nested = {
        "model": {"class_path": "my.Model", "init_args": {"rates": NAMES_OF_LAYERS, "of": {"a": {"b.c": {"d": 1}}}}}
    }
    flat = flatten(nested)
    assert flat == {"model": "my.Model", "model.rates": NAMES_OF_LAYERS, "model.of.a": {"b.c": {"d": 1}}}
    assert unflatten(flat) == nested
    assert flatten({"model": {"optimizer.lr": 1, "init_args": {"network.width": 2}}}) == {
        "model.optimizer.lr": 1, "model.network.width": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    "layers, rates",
    [
        ([{"model.rates": NAMES_OF_LAYERS}], NAMES_OF_LAYERS),
        (
            [{"model.rates": NAMES_OF_LAYERS}, {"model.rates": {"block2.conv": 1}}],
            {**NAMES_OF_LAYERS, "block2.conv": 1},
        ),
        ([{"model.rates.a": 1}, {"model.rates": NAMES_OF_LAYERS}], {"a": 1, **NAMES_OF_LAYERS}),
        ([{"model.rates": NAMES_OF_LAYERS}, {"model.rates.block1.conv": 9}], {**NAMES_OF_LAYERS, "block1.conv": 9}),
    ],
)
def test_mappings_of_layers_are_merged(layers, rates):
    flat = layered(*layers).flat
    assert flat["model.rates"] == rates and not [key for key in flat if key.startswith("model.rates.")]
    assert NAMES_OF_LAYERS == {"block1.conv": 0.1, "head": 0.2}


def test_dots_in_a_mapping_below_a_class_part_settings():
    flat = layered({"model.network": {"inner.width": 1, "depth": 2}}).flat
    assert (flat["model.network"], flat["model.network.inner.width"], flat["model.network.depth"]) == ("my.Net", 1, 2)


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


def test_a_setting_below_a_list_belongs_to_its_last_item():
    appended = layered({"trainer.callbacks+": ["B"]}, {"trainer.callbacks.patience": 3, "trainer.callbacks.of.x": 1})
    last = {"class_path": "B", "init_args": {"patience": 3, "of": {"x": 1}}}
    assert appended.flat["trainer.callbacks"] == ["A", last]
    assert appended.source["trainer.callbacks"] == "layer 1"
    assert not [key for key in appended.flat if key.startswith("trainer.callbacks.")]


def test_a_setting_below_a_list_may_be_written_before_it():
    layer = {"trainer.callbacks.patience": 3, "trainer.callbacks+": "B"}
    assert layered(layer).flat["trainer.callbacks"] == ["A", {"class_path": "B", "init_args": {"patience": 3}}]


def test_a_typed_setting_belongs_to_the_item_before_it():
    line = "--l+=A --l.x=1 --l+ B --l.init_args.y 2 --l.y=3"
    items = [{"class_path": "A", "init_args": {"x": 1}}, {"class_path": "B", "init_args": {"y": 3}}]
    assert parse_arguments(line.split()) == {"l+": items}


def test_plus_after_a_single_class_makes_a_list_of_both():
    settings = layered({"trainer.logger": "my.Logger", "trainer.logger.project": "p"}, {"trainer.logger+": "my.Other"})
    first = {"class_path": "my.Logger", "init_args": {"project": "p"}}
    assert settings.flat["trainer.logger"] == [first, "my.Other"]
    assert "trainer.logger.project" not in settings.flat


def test_what_was_typed_is_kept_for_settings_that_are_text():
    settings = layered()
    settings.add_arguments(["--codeversion=1.10", "--x", "null", "--y=abc", "--z=[1]", "--model.optimizer.lr=1e-3"])
    assert settings.texts == {"codeversion": "1.10", "x": "null", "model.optimizer.lr": "1e-3"}
    assert (settings.flat["codeversion"], settings.flat["x"], settings.flat["model.optimizer.lr"]) == (1.1, None, 0.001)
    settings.add({"codeversion": "2"}, "later")
    assert "codeversion" not in settings.texts


def test_questions_are_no_settings():
    settings = Settings()
    settings.add_arguments(["--model.init_args.network.help", "ConvNet", "--a=1", "-h", "--print_config", "--b", "2"])
    assert settings.flat == {"a": 1, "b": 2}
    assert settings.questions == ["--model.network.help=networks.ConvNet", "-h", "--print_config"]


@pytest.mark.parametrize("line", ["stray", "--a=1 stray", "--a 1 stray", "--help stray"])
def test_a_value_without_a_key_is_refused(line):
    with pytest.raises(SettingsError, match="unrecognized arguments: stray"):
        Settings().add_arguments(line.split())


def test_a_copy_is_changed_alone():
    settings = layered()
    other = settings.copy()
    other.add({"trainer.callbacks+": "B", "model.optimizer": "my.SGD"}, "more")
    assert settings.flat == BASE and set(settings.source.values()) == {"base.yaml"}


def test_same_class():
    assert same_class("SGD", "torch.optim.SGD") and same_class("torch.optim.SGD", "SGD")
    assert not same_class("GD", "torch.optim.SGD") and not same_class("my.SGD", "torch.optim.SGD")
    assert same_class(3, 3) and not same_class(3, None)


def test_did_you_mean():
    assert did_you_mean("trainer.max_epoch", ["trainer.max_epochs", "name"]) == " (did you mean trainer.max_epochs?)"
    assert did_you_mean("xyz", ["trainer.max_epochs"]) == ""


@pytest.mark.parametrize("chosen", [{"trainer.max_steps": 10}, {"max_samples": 100}])
def test_a_length_in_steps_or_samples_replaces_the_default_one_in_epochs(chosen):
    settings = settings_with(chosen)
    replace_default_length(settings)
    assert settings.flat["trainer.max_epochs"] == -1


@pytest.mark.parametrize(
    "chosen", [{}, {"trainer.max_steps": -1}, {"max_samples": None}, {"trainer.max_steps": 10, "trainer.max_epochs": 2}]
)
def test_a_length_in_epochs_that_was_asked_for_stays(chosen):
    settings = settings_with(chosen)
    before = dict(settings.flat)
    replace_default_length(settings)
    assert settings.flat == before


def settings_with(typed):
    settings = Settings()
    settings.add({"trainer.max_epochs": 15}, BASE_FILE)
    settings.add(typed, COMMAND_LINE)
    return settings


def test_a_list_grows_by_values_and_by_lists_on_one_command_line():
    assert parse_arguments(["--a+=[1, 2]", "--a+=3"]) == {"a+": [1, 2, 3]}


def test_what_was_typed_last_is_the_text_of_a_setting():
    assert typed_texts(["--a=1.10"]) == {"a": "1.10"}
    assert typed_texts(["--a=1.10", "--a=x"]) == {}


def test_a_key_without_a_value_is_asked_about():
    settings = Settings()
    settings.add_arguments(["--a", "--b=1.10"])
    assert settings.questions == ["--a"]
    assert settings.flat == {"a": True, "b": 1.1}


def test_a_dropped_setting_leaves_nothing_behind():
    settings = Settings()
    settings.add({"model": "mine.A", "model.x": 1, "data": "mine.D", "data.y": 1}, "first")
    settings.add({"model": "mine.B"}, "second")
    settings.add({"data": "mine.E"}, "third")
    assert settings.inherited == {"model.x", "data.y"}

    settings.add_arguments(["--b=1.10"])
    settings.drop("model.x")
    settings.drop("b")
    assert settings.inherited == {"data.y"}
    assert settings.texts == {}


def test_what_was_appended_has_the_source_of_the_last_layer():
    settings = Settings()
    settings.add({"c": [1]}, "first")
    settings.add({"c+": 2}, "second")
    assert settings.flat == {"c": [1, 2]}
    assert settings.source == {"c": "second"}


def test_questions_of_a_copy_are_its_own():
    settings = Settings()
    settings.add_arguments(["--model.help=ConvNet"])
    copy = settings.copy()
    settings.questions.append("--help")
    assert copy.questions == ["--model.help=networks.ConvNet"]
