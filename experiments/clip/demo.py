"""A tiny CLIP on bundled emoji, then emoji retrieval by text: minutes on two CPU cores.

Some 1,900 concepts are drawn in three styles, with names and keywords. The model learns from two
styles and nine tenths of the concepts, and is evaluated on the third, unseen style: retrieval of a
concept's drawing among all 1,811 by its name. Chance is 0.6 % among the first ten.

    jaxformers train experiments/clip/demo.py
"""

from jaxformers.data.captions import BundledEmoji
from jaxformers.data.images import Augmentation, InceptionCrop, Preprocessing
from jaxformers.models import CLIPConfig, CLIPImageConfig, CLIPTextConfig
from jaxformers.tasks import Contrastive
from jaxformers.training import Adam, Checkpointing, Cosine, Experiment, Logging

MEAN, STD = (0.85, 0.81, 0.76), (0.27, 0.29, 0.34)
MODEL = CLIPConfig(
    image=CLIPImageConfig(
        image_size=48,
        patch_size=8,
        width=128,
        heads=4,
        feed_forward=512,
        layers=4,
        projection=128,
        activation="gelu_tanh",
    ),
    text=CLIPTextConfig(
        vocab_size=2500,
        context_length=24,
        width=128,
        heads=4,
        feed_forward=512,
        layers=2,
        pooling="eos",
        eos_id=3,
        projection=128,
        activation="gelu_tanh",
    ),
)


def experiment() -> Experiment:
    """Contrastive training, evaluated by retrieval in the unseen style."""
    return Experiment(
        name="clip_demo",
        task=Contrastive(
            model=MODEL,
            data=BundledEmoji(("noto", "twemoji"), "seen"),
            augmentation=Augmentation(48, crop=InceptionCrop(area=(0.6, 1.0)), flip=0.0),
            preprocessing=Preprocessing(48, mean=MEAN, std=STD),
            dev=BundledEmoji(("fluent",)),
            rows=256,
            duplicates="masked",
        ),
        steps=800,
        optimizer=Adam(b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.2),
        schedule=Cosine(peak=1e-3, warmup=80),
        evaluate_every=200,
        checkpoint=Checkpointing(every=400, keep_last=1),
        logging=Logging(every=25),
    )
