"""BERT base fine-tuned to find named entities in CoNLL-2003 ("BERT", section 5.3 and table 7).

Paper, F1 of the development / test set: base 96.4 / 92.4, large 96.6 / 92.8, cased, each sentence
read with the text around it. Here a sentence stands alone, which costs about a point. The paper
states no hyper-parameters for this set; these are among those of appendix A.3: 3 epochs of 32
sentences at 5e-5, some minutes on one Cloud TPU.

The sentences are prepared once, on a machine with a network, or come from files in CoNLL's columns
(whose tags, in the original distribution, are IOB1):
    jaxformers prepare conll2003
    jaxformers train experiments/bert/conll.py
    jaxformers train experiments/bert/conll.py --task.data conll-file --task.data.path train.txt \
        --task.dev conll-file --task.dev.path valid.txt --task.test None
One's own set of other types takes the same command; the classes are those of its tags. Then
    echo "Ada Lovelace was born in London." | jaxformers tag runs/conll
"""

from jaxformers.data import TfdsTags
from jaxformers.models import BertConfig
from jaxformers.tasks import TokenClassification
from jaxformers.training import BertAdam, BertLinear, Experiment


def experiment() -> Experiment:
    """The experiment described above."""
    return Experiment(
        name="conll",
        task=TokenClassification(
            model=BertConfig.base(cased=True),
            data=TfdsTags("conll2003", split="train"),
            dev=TfdsTags("conll2003", split="dev"),
            test=TfdsTags("conll2003", split="test"),
            length=128,
            rows=32,
            weights="google-bert/bert-base-cased",
        ),
        steps=1316,  # of CoNLL-2003; `epochs` decides for every set
        epochs=3,
        optimizer=BertAdam(),
        schedule=BertLinear(peak=5e-5, warmup_share=0.1),
        clip_norm=1.0,
    )
