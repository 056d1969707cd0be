"""A run of some thousand parameters on four hosts, a checkpoint after every third step."""

from jaxformers.data import BundledPairs, Packing
from jaxformers.models import TransformerConfig
from jaxformers.sharding import MeshConfig
from jaxformers.tasks import Translation
from jaxformers.training import Checkpointing, Experiment, Linear, Logging


def experiment() -> Experiment:
    """The run."""
    model = TransformerConfig(
        vocab_size=201, width=16, heads=4, feed_forward=32, encoder_layers=1, decoder_layers=1,
        dropout=0.1, max_length=32,
    )  # fmt: skip
    pairs = BundledPairs(max_source_words=3, max_target_words=3)
    return Experiment(
        name="tiny_pod",
        task=Translation(model, pairs, batching=Packing(32, 32, 8)),
        steps=30,
        schedule=Linear(peak=2e-3, warmup=5),
        mesh=MeshConfig(data=-1, fsdp=2),
        vocab_multiple=8,
        checkpoint=Checkpointing(every=3, keep_last=2),
        logging=Logging(every=1, tensorboard=False),
    )
