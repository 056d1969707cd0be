"""BERT large in large batches with LAMB (You et al. 2019), by NVIDIA's published recipe.

7,038 steps of 65,536 sequences of 128 tokens, then 1,563 of 32,768 of 512, each phase with its own
learning rate: warm-up, then root decay. NVIDIA's loss at the end is 1.24 to 1.30, and SQuAD 1.1
90.4 to 91.0 F1; its GPUs accumulate gradients over parts of a batch, as `--accumulate` does here.
LAMB's paper trained in 76 minutes on 1,024 TPU v3 chips.

The data is as for pretrain_large.py. The run is
    jaxformers train experiments/bert/pretrain_large_lamb.py --task.vocabulary.path VOCABULARY \
        --folder gs://BUCKET/runs/bert_large_lamb --accumulate 16
"""

from jaxformers.data import JoinedDocuments, Phase, Pretraining, TextFolder, TfdsDocuments
from jaxformers.models import BertConfig
from jaxformers.tasks import MaskedLanguage
from jaxformers.training import Checkpointing, Experiment, Lamb, RootDecay, TwoPhases

BOOKS = "books"
FIRST, SECOND = 7038, 1563


def experiment() -> Experiment:
    """The experiment described above."""
    return Experiment(
        name="pretrain_large_lamb",
        task=MaskedLanguage(
            model=BertConfig.large(),
            data=JoinedDocuments((TextFolder(BOOKS), TfdsDocuments("wikipedia/20230601.en"))),
            pretraining=Pretraining(
                phases=(Phase(128, 65_536, 20, steps=FIRST), Phase(512, 32_768, 80)),
            ),
        ),
        steps=FIRST + SECOND,
        optimizer=Lamb(),
        schedule=TwoPhases(
            RootDecay(6e-3, 0.2843), RootDecay(4e-3, 0.128), share=FIRST / (FIRST + SECOND)
        ),
        clip_norm=1.0,
        remat="full",
        checkpoint=Checkpointing(every=200, keep_last=3),
    )
