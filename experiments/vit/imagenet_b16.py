"""ViT-B/16 trained on ImageNet alone ("An Image is Worth 16x16 Words", tables 3 and 5).

Paper: 300 epochs, batches of 4,096 at 224 pixels, Adam with a learning rate of 3e-3 and a cosine
after 10,000 steps, weight decay 0.3, dropout 0.1, gradients clipped to norm 1. Fine-tuned at 384
pixels: ImageNet 77.91 %, ReaL 83.57, CIFAR-10 98.13, CIFAR-100 87.13, Pets 93.81, Flowers 89.49.

ImageNet is fetched by hand (image-net.org wants an account), then prepared once by TFDS:
    jaxformers prepare imagenet2012 --data-dir gs://BUCKET/tfds
    jaxformers train experiments/vit/imagenet_b16.py --task.data.data-dir gs://BUCKET/tfds
"""

from jaxformers.data.images import Augmentation, Preprocessing, TfdsImages
from jaxformers.models import ViTConfig
from jaxformers.tasks import ImageClassification
from jaxformers.training import Adam, Checkpointing, Cosine, Experiment


def experiment() -> Experiment:
    """The experiment described above."""
    return Experiment(
        name="imagenet_b16",
        task=ImageClassification(
            model=ViTConfig.base(16, pre_logits=768, dropout=0.1),
            data=TfdsImages("imagenet2012", "train[:99%]", dev="train[99%:]", test="validation"),
            augmentation=Augmentation(224),
            preprocessing=Preprocessing(224),
            rows=4096,
            workers=16,
        ),
        steps=92_897,  # of 1,268,355 images; `epochs` decides
        epochs=300,
        optimizer=Adam(b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.3, decays="kernels"),
        schedule=Cosine(peak=3e-3, warmup=10_000),
        clip_norm=1.0,
        evaluate_every=5000,
        checkpoint=Checkpointing(every=5000),
    )
