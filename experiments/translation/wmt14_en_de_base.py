"""Transformer base, WMT14 English-German ("Attention Is All You Need", tables 2 and 3).

Paper: 27.3 BLEU on newstest2014 (tokenised, compound-split), 100,000 steps of about 25,000 source
and 25,000 target tokens, 12 hours on 8 P100 GPUs, 3.3e18 FLOPs. Mean of the last 5 checkpoints,
beam 4, length penalty 0.6.

The data is prepared once, on a machine with a network:
    jaxformers prepare wmt14_translate/de-en --data-dir gs://BUCKET/tfds
and the run is
    jaxformers train experiments/translation/wmt14_en_de_base.py \
        --task.data.data-dir gs://BUCKET/tfds --task.dev.data-dir gs://BUCKET/tfds \
        --task.test.data-dir gs://BUCKET/tfds --folder gs://BUCKET/runs/wmt14_en_de_base
"""

from jaxformers.data import Packing, TfdsPairs
from jaxformers.models import TransformerConfig
from jaxformers.tasks import Translation, Vocabulary
from jaxformers.training import Adam, Checkpointing, Experiment, InverseSquareRoot


def experiment() -> Experiment:
    """The experiment described above."""
    pairs = TfdsPairs("wmt14_translate/de-en", split="train", source="en", target="de")
    return Experiment(
        name="wmt14_en_de_base",
        task=Translation(
            model=TransformerConfig.base(vocab_size=37_000),
            data=pairs,
            dev=TfdsPairs("wmt14_translate/de-en", split="validation", source="en", target="de"),
            test=TfdsPairs("wmt14_translate/de-en", split="test", source="en", target="de"),
            # 112 rows of 256 places, 90 % full: about 25,000 tokens a side.
            batching=Packing(source_length=256, target_length=256, rows=112),
            vocabulary=Vocabulary("bpe"),
            label_smoothing=0.1,
            languages=("en", "de"),
        ),
        steps=100_000,
        optimizer=Adam(b1=0.9, b2=0.98, eps=1e-9),
        schedule=InverseSquareRoot(width=512, warmup=4000),
        average_last=5,
        evaluate_every=5000,
        # The paper averages checkpoints 10 minutes apart; at 0.4 s a step that is 1,500 steps.
        checkpoint=Checkpointing(every=1500, keep_last=5),
    )
