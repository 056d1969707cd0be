"""VQGAN with 16,384 codes on ImageNet ("Taming Transformers", the tokenizer of Unified-IO).

Published: 256 x 256 pixels become 16 x 16 codes; batches of 12 images a GPU, Adam (0.5, 0.9) at a
constant rate of 4.5e-6 times the batch, L1 and LPIPS losses, from step 250,001 on a discriminator
with weight 0.8. Reconstruction FID on ImageNet's validation set 4.98. LPIPS needs the weights of
VGG-16 and its own (`vgg.pth` of its authors), which are read without unpickling; without them the
perceptual loss compares the images' gradients:

    jaxformers prepare imagenet2012 --data-dir gs://BUCKET/tfds
    jaxformers train experiments/unified_io/vqgan_f16.py --task.data.data-dir gs://BUCKET/tfds \\
        --task.loss-weights.perceptual lpips \\
        --task.loss-weights.perceptual.files vgg16.safetensors vgg.pth
"""

from jaxformers.data.images import Augmentation, Preprocessing, RandomCrop, TfdsImages
from jaxformers.models import VQGANConfig
from jaxformers.tasks import ImageTokenizer
from jaxformers.training import Adam, Checkpointing, Experiment, Linear

ROWS = 96


def experiment() -> Experiment:
    """The run."""
    return Experiment(
        name="vqgan_f16",
        task=ImageTokenizer(
            model=VQGANConfig.f16_16384(),
            data=TfdsImages("imagenet2012", "train", test="validation"),
            dev=TfdsImages("imagenet2012", "validation", test="", limit=5000),
            augmentation=Augmentation(256, crop=RandomCrop(256), interpolation="bicubic"),
            preprocessing=Preprocessing.central(256, 1.0, interpolation="bicubic"),
            rows=ROWS,
            workers=16,
        ),
        steps=500_000,
        optimizer=Adam(b1=0.5, b2=0.9, eps=1e-8),
        schedule=Linear(peak=4.5e-6 * ROWS, warmup=0, end=4.5e-6 * ROWS),
        evaluate_every=25_000,
        checkpoint=Checkpointing(every=5000),
    )
