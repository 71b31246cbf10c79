"""GramRecorder: precision, any module and output, what it leaves behind, and its errors."""

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from lightning_hpc.cka import CKA, CKAError, GramRecorder, compare, plot_cka
from lightning_hpc.cka.layers import select_layers

from .conftest import Collect, Net, song_cka


class Echo(nn.Module):
    """Returns the features that it is given, one layer for each."""

    def __init__(self, depth):
        super().__init__()
        self.layers = nn.ModuleList(nn.Identity() for _ in range(depth))

    def forward(self, features):
        for layer, x in zip(self.layers, features, strict=True):
            layer(x)


def recorded(batches, **kwargs):
    model = Echo(len(batches[0]))
    metric = CKA(len(batches[0]))
    with GramRecorder(model, ["layers.*"], **kwargs) as recorder:
        for features in batches:
            model(features)
            metric.update(recorder.grams())
    return metric.compute()


@pytest.mark.parametrize("sizes", [(4, 4), (5,), (16, 16, 7), (64, 64, 9), (100, 70), (256,)], ids=str)
@pytest.mark.parametrize("width", [48, 4096])
@pytest.mark.parametrize("ratio", [0, 1, 10, 100, 1000])
def test_error_below_1e_6_for_any_mean_over_std(ratio, width, sizes):
    """Features with a common part, and, the hard case, independent ones."""
    batches = []
    for n in sizes:
        common = torch.randn(n, 8)
        layers = [common @ torch.randn(8, width) / 8**0.5 + 0.3 * torch.randn(n, width) for _ in range(3)]
        layers += [torch.randn(n, width) for _ in range(2)]
        batches.append([x / x.std() + ratio * torch.randn(width).sign() for x in layers])
    torch.testing.assert_close(recorded(batches), song_cka(batches), atol=1e-6, rtol=0)


def test_bf16_activations_are_taken_as_they_are():
    batches = [[(torch.randn(32, 4, 6) + 5).bfloat16() for _ in range(3)] for _ in range(3)]
    torch.testing.assert_close(recorded(batches), song_cka(batches), atol=1e-6, rtol=0)


def test_float64_activations_keep_float64():
    batches = [[torch.randn(32, 24, dtype=torch.float64) for _ in range(3)] for _ in range(2)]
    torch.testing.assert_close(recorded(batches), song_cka(batches), atol=1e-12, rtol=0)


def run(model, batches, names, recorder, context=None):
    """CKA by the recorder, and Song's from copies of the activations of the same passes."""
    context = context or torch.no_grad
    collect, metric = Collect(model, names), CKA(len(names))
    with collect, recorder:
        for x in batches:
            collect.batches.append([])
            with context():
                model(x)
            metric.update(recorder.grams())
    assert recorder.names == list(names)
    return metric.compute(), song_cka(collect.batches)


NAMES = ("0", "1", "2", "3", "6")


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_precisions_layouts_and_in_place_relu(autocast, layout, dtype):
    model = Net().to(dtype=dtype, memory_format=layout).eval()
    batches = [torch.randn(n, 1, 8, 8, dtype=dtype).to(memory_format=layout) for n in (32, 32, 11)]

    def context():
        return torch.autocast("cpu", torch.bfloat16, enabled=autocast)

    result, expected = run(model, batches, NAMES, GramRecorder(model), context)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)
    assert result[1, 2] < 0.99, "the in-place ReLU must not change what batch norm gave"


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_the_users_matmul_precision_neither_matters_nor_changes(precision):
    model, x = Net().eval(), torch.randn(64, 1, 8, 8)
    expected = compare(model, None, [x]).matrix
    torch.set_float32_matmul_precision(precision)
    try:
        with GramRecorder(model) as recorder, torch.no_grad():
            model(x)
            grams = recorder.grams()
        assert torch.get_float32_matmul_precision() == precision
        assert torch.backends.mkldnn.matmul.fp32_precision == {"high": "tf32", "medium": "bf16"}[precision]
    finally:
        torch.set_float32_matmul_precision("highest")
    metric = CKA(len(recorder.names))
    metric.update(grams)
    # The activations themselves differ a little: the model does run in that precision.
    torch.testing.assert_close(metric.compute(), torch.as_tensor(expected), atol=2e-4, rtol=0)
    features = torch.randn(64, 300)
    (gram,) = record_features(features, precision)
    features = features.double() - features.double().mean(0)
    torch.testing.assert_close(gram.double(), features @ features.T / 300, atol=1e-6, rtol=0)


def record_features(features, precision):
    model = Echo(1)
    torch.set_float32_matmul_precision(precision)
    try:
        with GramRecorder(model, ["layers.0"]) as recorder:
            model([features])
            return recorder.grams()
    finally:
        torch.set_float32_matmul_precision("highest")


def test_hooks_modes_weights_and_gradients_stay_as_they_are():
    model, x = Net(), torch.randn(8, 1, 8, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    with pytest.raises(ZeroDivisionError), GramRecorder(model):
        1 / 0  # noqa: B018
    assert not any(module._forward_hooks for module in model.modules())
    compare(model, None, [x, x])
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    with GramRecorder(model) as recorder:  # in training, gradients still flow
        model(x).sum().backward()
        assert not recorder.grams().requires_grad
    assert all(parameter.grad is not None for parameter in model.parameters())


# ---- outputs of every kind ----


@dataclass
class Output:
    loss: torch.Tensor
    logits: torch.Tensor


class Returns(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.linear, self.wrap = nn.Linear(6, 5), wrap

    def forward(self, x):
        return self.wrap(self.linear(x))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: (x, x.sum()),
        lambda x: [x.argmax(1), x],
        lambda x: {"loss": x.sum(), "hidden": x},
        lambda x: Output(x.sum(), x),
        lambda x: {"states": (None, [x])},
    ],
    ids=["tuple", "list", "dict", "dataclass", "nested"],
)
def test_first_floating_tensor_of_any_output(wrap):
    model = nn.ModuleDict({"part": Returns(wrap)})
    with GramRecorder(model, ["part", "part.linear"]) as recorder:
        model["part"](torch.randn(9, 6))
        a, b = recorder.grams()
    assert recorder.names == ["part.linear", "part"]
    assert torch.equal(a, b)


def test_reused_modules_are_numbered_and_layers_come_in_the_order_of_their_calls():
    class Reuse(nn.Module):
        def __init__(self):
            super().__init__()
            self.late, self.relu, self.early = nn.Linear(7, 5), nn.ReLU(inplace=True), nn.Linear(6, 7)
            self.alias = self.late

        def forward(self, x):
            return self.relu(self.alias(self.relu(self.early(x))))

    model = Reuse()
    batches = [torch.randn(12, 6) for _ in range(2)]
    metric = CKA(4)
    features = []
    with GramRecorder(model) as recorder, torch.no_grad():
        for x in batches:
            model(x)
            metric.update(recorder.grams())
    for x in batches:
        early = model.early(x).detach()
        late = model.late(early.relu()).detach()
        features.append([early, early.relu(), late, late.relu()])
    assert recorder.names == ["early", "relu", "late", "relu#1"]
    torch.testing.assert_close(metric.compute(), song_cka(features), atol=1e-6, rtol=0)
    assert list(select_layers(model, ["**"])[0]) == ["late", "relu", "early"], "a shared module counts once"


def test_recurrent_layers_with_the_samples_in_the_second_dimension():
    model = nn.Sequential(nn.LSTM(5, 6), Returns(lambda x: x))
    model[1].linear = nn.Identity()
    lstm = nn.ModuleDict({"lstm": nn.LSTM(5, 6)})
    x = torch.randn(7, 16, 5)  # time, samples, features
    with GramRecorder(lstm, batch_dim=1) as recorder, torch.no_grad():
        output, _ = lstm["lstm"](x)
        (gram,) = recorder.grams()
    flat = output.transpose(0, 1).flatten(1).double()
    flat -= flat.mean(0)
    torch.testing.assert_close(gram.double(), flat @ flat.T / flat.shape[1], atol=1e-6, rtol=1e-5)


def test_a_transformers_model_built_from_its_config():
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=32,
    )  # fmt: skip
    model = BertModel(config)
    batches = [
        {"input_ids": torch.randint(50, (16, 12)), "attention_mask": torch.ones(16, 12, dtype=torch.long)}
        for _ in range(2)
    ]
    result = compare(model, None, batches, layers=["embeddings", "encoder.layer.*.output", "encoder", "pooler"])
    assert result.rows == ["embeddings", *(f"encoder.layer.{i}.output" for i in range(3)), "encoder", "pooler"]
    assert result.matrix[3, 4] == pytest.approx(1, abs=1e-6), "the encoder's output is its last layer's"
    expected = []
    with torch.no_grad():
        for batch in batches:
            hidden = model.eval()(**batch, output_hidden_states=True)
            expected.append([*hidden.hidden_states, hidden.pooler_output])
    torch.testing.assert_close(
        torch.as_tensor(result.matrix)[[0, 1, 2, 3, 5]][:, [0, 1, 2, 3, 5]], song_cka(expected), atol=1e-6, rtol=0
    )
    assert compare(model, None, batches).rows == ["embeddings", "encoder", "pooler"]


# ---- which layers ----


def test_default_layers_open_containers_and_leave_out_metrics_losses_and_dropout():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.blocks = nn.Linear(4, 4), nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
            self.head = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 2))
            self.loss, self.accuracy = nn.CrossEntropyLoss(), MulticlassAccuracy(2)

    assert list(select_layers(Model())[0]) == ["stem", "blocks.0", "blocks.1", "head.2"]
    wrapper = nn.ModuleDict({"net": Model()})
    assert list(select_layers(wrapper)[0]) == ["net.stem", "net.blocks.0", "net.blocks.1", "net.head.2"]
    assert list(select_layers(Model(), ["**"])[0]) == [
        "stem", "blocks.0", "blocks.1", "head", "head.0", "head.1", "head.2"
    ]  # fmt: skip
    assert list(select_layers(Model(), ["*"])[0]) == ["stem", "head"]
    assert list(select_layers(Model(), ["blocks.*", "st?m"])[0]) == ["blocks.0", "blocks.1", "stem"]
    with pytest.raises(CKAError, match="Linear has no children"):
        select_layers(nn.Linear(2, 2))


def test_a_pattern_that_matches_nothing_names_the_nearest():
    with pytest.raises(CKAError, match="no layer of Net matches 'linaer'; nearest: "):
        GramRecorder(Net(), ["linaer"])
    model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 2)})
    with pytest.raises(CKAError, match="nearest: encoder"):
        GramRecorder(model, ["encodr"])


class Odd(nn.Module):
    """Layers that can't be compared beside two that can."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.never, self.indices, self.windows = nn.Linear(4, 4), Returns(lambda x: x.argmax(1)), nn.Identity()
        self.indices.linear = nn.Identity()

    def forward(self, x):
        self.indices(x)
        self.windows(torch.cat([x, x]))
        return self.second(self.first(x))


PROBLEMS = {
    "never": "layer 'never' did not run",
    "indices": "layer 'indices' gave no floating-point tensor",
    "windows": "layer 'windows' gave 16 rows for 8 samples",
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_layer_asked_for_by_name_must_work(name):
    model = Odd()
    with GramRecorder(model, ["first", "second", name]) as recorder:
        model(torch.randn(8, 4))
        with pytest.raises(CKAError, match=PROBLEMS[name]):
            recorder.grams()


def test_what_a_glob_finds_but_cannot_be_compared_is_left_out_with_a_warning():
    model = Odd()
    with GramRecorder(model, ["first", "second", "n*", "i*", "w?ndows"]) as recorder:
        model(torch.randn(8, 4))
        with pytest.warns(UserWarning, match="leaves out .*'never'.*did not run.*'indices'.*'windows'"):
            assert recorder.grams().shape == (2, 8, 8)
        model(torch.randn(8, 4))
        assert recorder.grams().shape == (2, 8, 8)
    assert recorder.names == ["first", "second"]


def test_layers_that_change_from_batch_to_batch():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.batches = nn.Linear(4, 4), nn.Linear(4, 4), 0

        def forward(self, x):
            self.batches += 1
            y = self.a(x)
            return self.b(torch.cat([y, y]) if self.batches == 3 else y) if self.batches != 2 else y

    model = Sometimes()
    with GramRecorder(model) as recorder:
        model(torch.randn(8, 4))
        recorder.grams()
        model(torch.randn(8, 4))
        with pytest.raises(CKAError, match="layer 'b' did not run in this batch"):
            recorder.grams()
        model(torch.randn(8, 4))
        with pytest.raises(CKAError, match="differ in the number of samples .'a': 8, 'b': 16"):
            recorder.grams()


def test_a_compiled_model_points_to_the_original():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(8, 4)
    compiled(x)
    with GramRecorder(compiled) as recorder:
        compiled(x)
        with pytest.raises(CKAError, match="torch.compile .*run the original module"):
            recorder.grams()
        compiled._orig_mod(x)
        assert recorder.grams().shape == (3, 8, 8)
    assert recorder.names == ["0", "1", "2"]


def test_compiling_while_recording_leaves_no_hook_in_the_compiled_code():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    compiled, x = torch.compile(model, backend="eager"), torch.randn(8, 4)
    recorder = GramRecorder(model)
    with recorder, torch.no_grad():
        compiled(x)
        with pytest.raises(CKAError, match="run the original module"):
            recorder.grams()
    with torch.no_grad():
        compiled(x)
    assert not recorder._batch.grams


def test_constant_layers_are_found_in_spite_of_rounding(recwarn):
    """A constant plus one unit in the last place here and there, as a long sum in another order gives."""
    constant = torch.full((32, 50), 3.7)
    batches = [[torch.randn(32, 8), constant * (1 + 1.2e-7 * torch.randint(-1, 2, (32, 50)))] for _ in range(2)]
    assert batches[0][1].std() > 0
    matrix = recorded(batches)
    assert matrix[0, 0].item() == pytest.approx(1) and matrix[1].isnan().all() and matrix[:, 1].isnan().all()
    assert any("the same output for every sample" in str(warning.message) for warning in recwarn)


@pytest.mark.parametrize("sizes", [(2, 3, 40, 40), (40, 1, 40)], ids=str)
def test_tiny_batches_between_others_change_nothing(sizes):
    batches = [[torch.randn(n, 64) + 300 * torch.ones(64), torch.randn(n, 64)] for n in sizes]
    expected = song_cka([batch for batch in batches if len(batch[0]) > 3])
    torch.testing.assert_close(recorded(batches), expected, atol=1e-6, rtol=0)


def test_nan_activations_name_the_layer():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.constant_(model[2].weight, torch.inf)
    with pytest.raises(CKAError, match="NaN or infinite activations in '2'"):
        compare(model, None, [torch.randn(8, 4)])


# ---- compare ----


def test_compare_draws_no_random_number():
    class Noisy(Net):
        def forward(self, x):
            return super().forward(x + random.random() + np.random.rand() + torch.rand(()))

    model, states = Noisy(), []
    for _ in range(2):
        states.append((torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()))
        compare(model, None, [torch.ones(8, 1, 8, 8) * torch.arange(8).reshape(8, 1, 1, 1)])
    assert states[0] == states[1]


def test_compare_two_models_and_write_the_map(tmp_path):
    a, b = Net(), Net()
    data = [(torch.randn(16, 1, 8, 8), torch.zeros(16)) for _ in range(4)]
    python_state = torch.get_rng_state()
    result = compare(a, b, data, max_batches=3, layers=["0", "2", "6"], labels=("this", "that"))
    assert torch.equal(python_state, torch.get_rng_state())
    assert (result.samples, result.rows, result.columns) == (48, ["0", "2", "6"], ["0", "2", "6"])
    collect_a, collect_b = Collect(a, result.rows), Collect(b, result.rows)
    with collect_a, collect_b, torch.no_grad():
        for x, _ in data[:3]:
            for collect, model in ((collect_a, a), (collect_b, b)):
                collect.batches.append([])
                model.eval()(x)
    expected = song_cka(collect_a.batches, collect_b.batches)
    torch.testing.assert_close(torch.as_tensor(result.matrix), expected, atol=1e-6, rtol=0)
    result.save(tmp_path / "deep" / "map")
    stored = np.load(tmp_path / "deep" / "map.npz")
    assert np.array_equal(stored["matrix"], result.matrix) and stored["rows"].tolist() == result.rows
    assert str(stored["row_label"]) == "this" and stored["samples"] == 48
    assert (tmp_path / "deep" / "map.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["map.npz", "map.png"]


def test_drawing_leaves_matplotlib_alone_and_shows_nan_in_grey(tmp_path):
    import matplotlib
    import matplotlib.pyplot as plt

    settings, windows = dict(matplotlib.rcParams), plt.get_fignums()
    matrix = np.array([[1, np.nan], [-0.2, 0.5]])
    figure = plot_cka(matrix, ["a", "b"], ["c", "d"], path=tmp_path / "map.png")
    assert dict(matplotlib.rcParams) == settings and plt.get_fignums() == windows
    pixels = np.asarray(figure.canvas.buffer_rgba())
    box = figure.axes[0].get_window_extent()
    x, y = box.x0 + 0.95 * box.width, box.y0 + 0.05 * box.height
    assert pixels[len(pixels) - int(y), int(x)][:3].tolist() == [204, 204, 204]
