"""A tiny BERT, pre-trained on the bundled help pages, then fine-tuned on few labels.

It learns to fill in masked words of LibreOffice's help (3 million tokens in 1,600 steps), and then
which of eight programs a line of the help explains, on pages that it never read. The report's
picture is what the paper is about: accuracy by the number of labels, from the pre-trained weights
and of the same network from scratch. Test accuracy in %, mean and standard deviation of 5 seeds:

    labels   pre-trained    from scratch   bag of words   gain, standard error
       200   54.7 ± 1.5     36.2 ± 1.3     46.7 ± 3.0     +18.5 ± 1.2
       500   56.4 ± 2.2     44.4 ± 2.2     56.0 ± 2.1     +12.0 ± 0.2
     2,000   64.7 ± 0.9     54.7 ± 3.4     63.9 ± 1.3     +9.9 ± 1.7

Both arms have a rate and a number of steps of their own, chosen among a few on the development
lines with 500 labels (docs/papers/bert.md). The bag of words is a logistic regression. Differs from
the paper: no next sentences, a quarter of the tokens masked, Adam with bias correction.

    jaxformers train experiments/bert/demo.py
"""

from dataclasses import replace

from jaxformers.data import BundledHelp, BundledHelpPages, Phase, Pretraining
from jaxformers.models import BertConfig
from jaxformers.tasks import MaskedLanguage, SequenceClassification
from jaxformers.training import Adam, BertLinear, Checkpointing, Experiment, LabelCurve, Logging

MODEL = BertConfig(
    vocab_size=4000,
    width=128,
    heads=4,
    feed_forward=512,
    layers=2,
    max_length=64,
    dropout=0.0,
    attention_dropout=0.0,
)


def experiment() -> Experiment:
    """Pre-training, the curve of accuracy by labels, then fine-tuning on all labels."""
    task = MaskedLanguage(
        model=MODEL,
        data=BundledHelpPages("train"),
        dev=BundledHelpPages("dev"),
        pretraining=Pretraining((Phase(64, 32, 17),), masked_share=0.25, next_sentence=False),
    )
    curve = LabelCurve(
        fine_tuned=fine_tuning(None, steps=300, peak=1e-3),
        from_scratch=fine_tuning(None, steps=800, peak=6e-4),
    )
    return Experiment(
        name="bert_demo",
        task=task,
        steps=1600,
        optimizer=Adam(weight_decay=0.01),
        schedule=BertLinear(peak=2e-3, warmup_share=0.05),
        clip_norm=1.0,
        vocab_multiple=16,
        evaluators=(*task.evaluators(), curve),
        checkpoint=Checkpointing(every=1000, keep_last=2),
        logging=Logging(every=50),
        after=(fine_tuning("previous", steps=3000, peak=1e-3),),
    )


def fine_tuning(weights: str | None, steps: int, peak: float) -> Experiment:
    """Classification of help lines by the program that they explain."""
    return Experiment(
        name="fine_tuned",
        task=SequenceClassification(
            model=replace(MODEL, dropout=0.1),
            data=BundledHelp("train"),
            length=32,
            rows=16,
            weights=weights,
            vocabulary=weights,
        ),
        steps=steps,
        optimizer=Adam(weight_decay=0.01),
        schedule=BertLinear(peak=peak, warmup_share=0.1),
        clip_norm=1.0,
        vocab_multiple=16,
        checkpoint=Checkpointing(every=1000, keep_last=1),
        logging=Logging(every=50),
    )
