"""Shapes of a model's variables."""

import jax

import jaxformers as jf
from jaxformers.layers import Execution
from jaxformers.pretrained.model_variables import variable_shapes

CONFIG = dict(vocab_size=30, width=8, heads=2, feed_forward=16, encoder_layers=1, decoder_layers=1)


def test_shapes_are_traced_once_and_belong_to_the_caller(monkeypatch):
    num_traces = []
    eval_shape = jax.eval_shape

    def counted(function, *args):
        # Flax calls `eval_shape` on the initialisers within.
        if getattr(function, "__name__", "") == "init":
            num_traces.append(1)
        return eval_shape(function, *args)

    monkeypatch.setattr(jax, "eval_shape", counted)
    model = jf.Transformer(jf.TransformerConfig(**CONFIG))
    shapes = variable_shapes(model)
    expected = dict(shapes)
    shapes.clear()
    assert variable_shapes(jf.Transformer(jf.TransformerConfig(**CONFIG))) == expected
    assert len(num_traces) == 1
    wider = jf.Transformer(jf.TransformerConfig(**{**CONFIG, "width": 16}))
    assert variable_shapes(wider).keys() == expected.keys() and variable_shapes(wider) != expected
    padded = variable_shapes(model, Execution(vocab_multiple=16))
    changed = {shape for path, shape in padded.items() if shape != expected[path]}
    assert changed and all(32 in shape for shape in changed)
