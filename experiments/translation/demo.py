"""A small English-German Transformer on the bundled pairs: minutes on two CPU cores.

The pairs are LibreOffice's help and interface, of 2 to 10 English and at most 12 German words,
split by document. The recipe is the paper's at a small size, but for pre-norm blocks and a linear
decay, which learn faster in few steps.

    jaxformers train experiments/translation/demo.py
"""

from jaxformers.data import BundledPairs, Packing
from jaxformers.models import TransformerConfig
from jaxformers.tasks import Translation, Vocabulary
from jaxformers.training import Adam, Checkpointing, Experiment, Linear, Logging


def experiment() -> Experiment:
    """The experiment described above."""
    pairs = BundledPairs("en-de", min_source_words=2, max_source_words=10, max_target_words=12)
    held_out = BundledPairs("en-de", "held_out", 2, 10, 12)
    model = TransformerConfig(
        vocab_size=4000,
        width=192,
        heads=4,
        feed_forward=768,
        encoder_layers=3,
        decoder_layers=2,
        dropout=0.1,
        norm_position="pre",
        max_length=256,
    )
    return Experiment(
        name="demo",
        task=Translation(
            model=model,
            data=pairs,
            dev=held_out,
            test=held_out,
            batching=Packing(source_length=64, target_length=72, rows=24),
            vocabulary=Vocabulary("unigram"),
        ),
        steps=900,
        optimizer=Adam(b1=0.9, b2=0.98, eps=1e-9),
        schedule=Linear(peak=2e-3, warmup=200),
        clip_norm=1.0,
        vocab_multiple=16,
        checkpoint=Checkpointing(every=300, keep_last=2),
        logging=Logging(every=25),
    )
