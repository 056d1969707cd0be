"""A tiny BERT, pre-trained on the bundled addresses, then fine-tuned: minutes on two CPU cores.

It learns to fill in masked words of the addresses on the state of the union (1.8 million words) and
whether one passage follows another; then to tell positive from negative sentences about films. The
same network, fine-tuned as long without pre-training, measures the gain of pre-training: here none.
Over five seeds 75.0 % of the test sentences against 77.7 %, a loss of 2.8 points with a standard
error of 1.1 (`benchmarks/bert_demo.py`): ten million tokens of two centuries' addresses teach a
network of this size next to nothing about films (its perplexity is still 362), and it has to
unlearn them. The gain of published weights on the same sentences is in the README.

    jaxformers train experiments/bert/demo.py
"""

from jaxformers.data import BundledDocuments, BundledMovies, Phase, Pretraining
from jaxformers.models import BertConfig
from jaxformers.tasks import MaskedLanguage, SequenceClassification
from jaxformers.training import BertAdam, BertLinear, Checkpointing, Experiment, Logging

MODEL = BertConfig(
    vocab_size=8000,
    width=128,
    heads=4,
    feed_forward=512,
    layers=3,
    max_length=64,
    dropout=0.1,
    attention_dropout=0.0,
)


def experiment() -> Experiment:
    """Pre-training, then fine-tuning of its weights and of random ones."""
    return Experiment(
        name="bert_demo",
        task=MaskedLanguage(
            model=MODEL,
            data=BundledDocuments("train"),
            dev=BundledDocuments("held_out"),
            pretraining=Pretraining((Phase(64, 64, 10),)),
        ),
        steps=2400,
        optimizer=BertAdam(),
        schedule=BertLinear(peak=1e-3, warmup_share=0.1),
        clip_norm=1.0,
        vocab_multiple=16,
        checkpoint=Checkpointing(every=600, keep_last=2),
        logging=Logging(every=50),
        after=(fine_tuning("fine_tuned", "previous"), fine_tuning("from_scratch", None)),
    )


def fine_tuning(name: str, weights: str | None) -> Experiment:
    """Classification of positive and negative sentences, from `weights` or from scratch."""
    return Experiment(
        name=name,
        task=SequenceClassification(
            model=MODEL,
            data=BundledMovies("train"),
            length=48,
            rows=32,
            weights=weights,
            vocabulary="previous",
        ),
        steps=900,
        epochs=3,
        optimizer=BertAdam(),
        schedule=BertLinear(peak=3e-4, warmup_share=0.1),
        clip_norm=1.0,
        vocab_multiple=16,
        checkpoint=Checkpointing(every=1000, keep_last=1),
        logging=Logging(every=50),
    )
