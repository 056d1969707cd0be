"""BERT base fine-tuned on SQuAD 1.1 or 2.0 ("BERT", sections 4.2, 4.3 and A.3).

Paper, SQuAD 1.1 development set, exact match / F1: base 80.8 / 88.5, large 84.1 / 90.9; large with
TriviaQA first 84.2 / 91.1, and seven such models together 86.2 / 92.2. SQuAD 2.0: large 78.7 /
81.9. 3 epochs of 32 windows of 384 tokens at 5e-5; at most half an hour on one Cloud TPU.

The questions are prepared once, on a machine with a network, or come from the official files:
    jaxformers prepare squad/v1.1
    jaxformers train experiments/bert/squad.py
    jaxformers train experiments/bert/squad.py --task.data squad-json --task.data.path train.json \
        --task.dev squad-json --task.dev.path dev.json
SQuAD 2.0 is --task.data.name squad/v2.0 --task.dev.name squad/v2.0; TriviaQA comes as files in
SQuAD's form, and --task.weights RUN goes on from it. `jaxformers evaluate RUN RUN ...` evaluates
an ensemble.
"""

from jaxformers.data import TfdsSquad
from jaxformers.models import BertConfig
from jaxformers.tasks import SpanExtraction
from jaxformers.training import BertAdam, BertLinear, Checkpointing, Experiment


def experiment() -> Experiment:
    """The experiment described above."""
    return Experiment(
        name="squad",
        task=SpanExtraction(
            model=BertConfig.base(),
            data=TfdsSquad("squad/v1.1", split="train"),
            dev=TfdsSquad("squad/v1.1", split="validation"),
            rows=32,
            weights="google-bert/bert-base-uncased",
        ),
        steps=8300,  # of SQuAD 1.1; `epochs` decides for every set
        epochs=3,
        optimizer=BertAdam(),
        schedule=BertLinear(peak=5e-5, warmup_share=0.1),
        clip_norm=1.0,
        checkpoint=Checkpointing(every=1000, keep_last=2),
    )
