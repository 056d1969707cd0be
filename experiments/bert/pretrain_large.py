"""BERT large, pre-trained on books and Wikipedia ("BERT", sections 3.1 and A.2).

Paper: 1,000,000 steps of 256 sequences, nine tenths of them at 128 tokens and the rest at 512, in 4
days on 16 Cloud TPUs (64 TPU v2 chips), about 5.3e20 FLOPs. Masked-word perplexity 3.23;
fine-tuned: GLUE 82.1, SQuAD 1.1 84.1 exact match and 90.9 F1 (development set).

BooksCorpus (800M words) is not public any more: a folder with one text file per book replaces it.
English Wikipedia (2.5B words) is prepared once, on a machine with a network:
    jaxformers prepare wikipedia/20230601.en --data-dir gs://BUCKET/tfds
The vocabulary is the published one: a folder with bert-base-uncased's vocab.txt. The run is
    jaxformers train experiments/bert/pretrain_large.py --task.vocabulary.path VOCABULARY \
        --folder gs://BUCKET/runs/bert_large
with `BOOKS` and Wikipedia's folder set below, or TFDS_DATA_DIR in the environment.
"""

from jaxformers.data import JoinedDocuments, Phase, Pretraining, TextFolder, TfdsDocuments
from jaxformers.models import BertConfig
from jaxformers.tasks import MaskedLanguage
from jaxformers.training import BertAdam, BertLinear, Checkpointing, Experiment

BOOKS = "books"


def experiment() -> Experiment:
    """The experiment described above."""
    return Experiment(
        name="pretrain_large",
        task=MaskedLanguage(
            model=BertConfig.large(),
            data=JoinedDocuments((TextFolder(BOOKS), TfdsDocuments("wikipedia/20230601.en"))),
            pretraining=Pretraining(
                phases=(Phase(128, 256, 20, steps=900_000), Phase(512, 256, 77)),
            ),
        ),
        steps=1_000_000,
        optimizer=BertAdam(),
        schedule=BertLinear(peak=1e-4, warmup=10_000),
        clip_norm=1.0,
        checkpoint=Checkpointing(every=5000, keep_last=3),
    )
