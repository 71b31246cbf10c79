"""Networks from other packages by class path, without a change of code."""

import pytest

HF = ["--model.network=transformers.ResNetForImageClassification", "--model.network.config=transformers.ResNetConfig"]


def test_a_transformers_network_from_its_config(train):
    """Nothing is downloaded: the weights are random. Its output is an object with `.logits`."""
    pytest.importorskip("transformers")
    small = ["--model.network.config.hidden_sizes=[8,16]", "--model.network.config.depths=[1,1]",
             "--model.network.config.embedding_size=8", "--model.network.config.layer_type=basic"]  # fmt: skip
    run = train(
        "fit", *HF, *small, "--model.network.config.num_channels=1", "--model.network.config.dict_kwargs.num_labels=10"
    )
    assert run.status["state"] == "done"
    weights = run.checkpoint()["state_dict"]
    assert weights["network.classifier.1.weight"].shape == (10, 16)
    assert weights["network.resnet.embedder.embedder.convolution.weight"].shape[1] == 1
    assert train("test", "--run", str(run.folder)).code == 0
