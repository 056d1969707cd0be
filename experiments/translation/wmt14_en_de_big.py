"""Transformer big, WMT14 English-German ("Attention Is All You Need", tables 2 and 3).

Paper: 28.4 BLEU on newstest2014 (tokenised, compound-split), 300,000 steps of about 25,000 source
and 25,000 target tokens, 3.5 days on 8 P100 GPUs, 2.3e19 FLOPs. Mean of the last 20 checkpoints,
beam 4, length penalty 0.6; dropout 0.3.

The data is prepared once, on a machine with a network:
    jaxformers prepare wmt14_translate/de-en --data-dir gs://BUCKET/tfds
and the run is
    jaxformers train experiments/translation/wmt14_en_de_big.py \
        --task.data.data-dir gs://BUCKET/tfds --task.dev.data-dir gs://BUCKET/tfds \
        --task.test.data-dir gs://BUCKET/tfds --folder gs://BUCKET/runs/wmt14_en_de_big
"""

from jaxformers.data import Packing, TfdsPairs
from jaxformers.models import TransformerConfig
from jaxformers.tasks import Translation, Vocabulary
from jaxformers.training import Adam, Checkpointing, Experiment, InverseSquareRoot


def experiment() -> Experiment:
    """The experiment described above."""
    pairs = TfdsPairs("wmt14_translate/de-en", split="train", source="en", target="de")
    return Experiment(
        name="wmt14_en_de_big",
        task=Translation(
            model=TransformerConfig.big(vocab_size=37_000, dropout=0.3),
            data=pairs,
            dev=TfdsPairs("wmt14_translate/de-en", split="validation", source="en", target="de"),
            test=TfdsPairs("wmt14_translate/de-en", split="test", source="en", target="de"),
            # 112 rows of 256 places, 90 % full: about 25,000 tokens a side.
            batching=Packing(source_length=256, target_length=256, rows=112),
            vocabulary=Vocabulary("bpe"),
            label_smoothing=0.1,
            languages=("en", "de"),
        ),
        steps=300_000,
        optimizer=Adam(b1=0.9, b2=0.98, eps=1e-9),
        schedule=InverseSquareRoot(width=1024, warmup=4000),
        average_last=20,
        evaluate_every=5000,
        # The paper averages checkpoints 10 minutes apart; at 1.0 s a step that is 600 steps.
        checkpoint=Checkpointing(every=600, keep_last=20),
    )
