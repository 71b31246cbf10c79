"""Hypothesis strategies for settings."""

from hypothesis import strategies as st

words = st.sampled_from(["a", "b", "width", "lr", "model", "network"])
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.integers())
classes = st.sampled_from(["my.Net", "torch.optim.SGD", "Digits"])


@st.composite
def flat_settings(draw, depth=3):
    """Short keys as they occur: a section holds settings; a class is a name with its arguments below it."""
    flat = {}
    for word in draw(st.sets(words, max_size=4)):
        kind = draw(st.sampled_from(["value", "section", "class"])) if depth else "value"
        if kind == "value":
            flat[word] = draw(values)
            continue
        below = draw(flat_settings(depth=depth - 1))
        if kind == "class":
            flat[word] = draw(classes)
        flat |= {f"{word}.{key}": value for key, value in below.items()}
    return flat
