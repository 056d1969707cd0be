"""A tiny Unified-IO on scenes of emoji: one model, seventeen tasks, up to an hour on two CPU cores.

Scenes are one to three emoji of six kinds, placed, scaled and overlapped on plain or patterned
grounds, so that every task has exact truth. Each kind is drawn in three styles: the model learns
from two of them and is evaluated on the third. Two runs follow each other:

- a VQGAN that writes a picture of 16 x 16 pixels as 8 x 8 codes and paints it from them. A fifth of
  its training pictures are depth maps and painted masks, which are answers of the tasks. Its norms
  have 8 groups, not 32: with one or two channels in a group, a norm would remove the colours of the
  whole picture. The entropy term keeps the codes in use. There is no discriminator;
- a Unified-IO with these codes, for all tasks at once: captions, classes, numbers, colours,
  detection, localisation, referring, region captions, relations, segments, depth, inpainting,
  pictures from text, the sign of film sentences and the language of headings. Codes of pictures are
  drawn at a temperature of 0.6: at 0.25 a mask that starts black often stays black.

The report has a table of each task's metric beside that of an answer that needs no model (the most
frequent one, the mean map, the mean box, a copy of the input), the gain with its standard error,
and pictures of input, truth and answer.

    jaxformers train experiments/unified_io/demo.py
    jaxformers ask runs/unified_io_demo/tasks "What does the image describe ?" --image scene.png
"""

from jaxformers.data.images import Augmentation, Preprocessing, RandomCrop
from jaxformers.data.mixture import Mixture
from jaxformers.data.scenes import EmojiSceneImages, EmojiScenes
from jaxformers.decoding.sampling import Sampling
from jaxformers.models import UnifiedIOConfig, VQGANConfig
from jaxformers.tasks import ImageTokenizer, TextImage
from jaxformers.tasks.image_tokenizer.perceptual import ImageGradients
from jaxformers.tasks.image_tokenizer.tokenizer_loss import VQGANLoss
from jaxformers.tasks.text_image import (
    VQA,
    BundledTexts,
    Captioning,
    Categorisation,
    Depth,
    Detection,
    ImageClassification,
    Inpainting,
    Localisation,
    Referring,
    RegionCaptioning,
    Relationship,
    Segmentation,
    Synthesis,
    TextClassification,
)
from jaxformers.training import Adafactor, Adam, Checkpointing, Cosine, Experiment, Logging

SIDE = 16
WORLD = dict(side=SIDE, most_objects=3, things=6, farthest_scale=0.45, nearest_scale=0.65)
SEEN = EmojiScenes(size=20_000, **WORLD)
HELD_OUT = EmojiScenes(size=512, held_out=True, **WORLD)
PIXELS = Preprocessing.central(SIDE, 1.0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
VQGAN = VQGANConfig(
    resolution=SIDE,
    ch=32,
    ch_mult=(1, 1),
    num_res_blocks=1,
    attn_resolutions=(),
    embed_dim=8,
    z_channels=16,
    n_embed=256,
    norm_groups=8,
    codebook_init="normal",
)
MODEL = UnifiedIOConfig(
    vocab_size=4096,
    image_vocab_size=VQGAN.n_embed,
    width=128,
    heads=4,
    head_width=32,
    feed_forward=256,
    encoder_layers=3,
    decoder_layers=2,
    patch_size=4,
    image_rows=SIDE,
    image_columns=SIDE,
    encoder_text_length=48,
    encoder_image_length=16,
    decoder_text_length=16,
    decoder_image_length=VQGAN.grid**2,
    image_tokenizer=VQGAN,
)


def experiment() -> Experiment:
    """The image tokenizer, followed by the run of all tasks."""
    return Experiment(
        name="unified_io_demo",
        task=ImageTokenizer(
            model=VQGAN,
            data=EmojiSceneImages(SEEN, dev_size=256, maps=0.2),
            augmentation=Augmentation(SIDE, crop=RandomCrop(SIDE)),
            preprocessing=PIXELS,
            loss_weights=VQGANLoss(
                perceptual=ImageGradients(2),
                perceptual_weight=0.5,
                entropy_weight=0.02,
                entropy_temperature=0.1,
            ),
            discriminator=None,
            rows=16,
        ),
        steps=2000,
        optimizer=Adam(b1=0.9, b2=0.99, eps=1e-8),
        schedule=Cosine(peak=2e-3, warmup=30),
        evaluate_every=1000,
        checkpoint=Checkpointing(every=1000, keep_last=1),
        logging=Logging(every=100),
        after=(all_tasks(),),
    )


def all_tasks() -> Experiment:
    """One model for all tasks; a batch's tasks have the same modalities."""
    return Experiment(
        name="tasks",
        task=TextImage(
            model=MODEL,
            mixture=mixture(SEEN, texts_held_out=False),
            dev=mixture(HELD_OUT, texts_held_out=True),
            dev_examples=256,
            sampling=Sampling(temperature=0.6),
            rows=32,
            text_length=48,
            target_length=16,
            bucket_by_modality=True,
            image_tokenizer_weights="previous",
        ),
        steps=8000,
        optimizer=Adafactor(),
        schedule=Cosine(peak=3e-2, warmup=100),
        clip_norm=1.0,
        frozen=("image_tokenizer/.*",),
        checkpoint=Checkpointing(every=1000, keep_last=1),
        logging=Logging(every=100),
    )


def mixture(scenes: EmojiScenes, texts_held_out: bool) -> Mixture:
    """Fifteen tasks on scenes and two on texts; what is learnt slowly is drawn more often."""
    films, headings = (BundledTexts(kind, texts_held_out) for kind in ("movies", "headings"))
    return Mixture(
        {
            "caption": Captioning(scenes),
            "classify": (ImageClassification(scenes), 0.5),
            "categorise": Categorisation(scenes),
            "count": (VQA(scenes, kind="count"), 3.0),
            "colour": (VQA(scenes, kind="colour"), 0.5),
            "presence": (VQA(scenes, kind="presence"), 1.5),
            "detect": (Detection(scenes), 2.0),
            "locate": (Localisation(scenes), 2.0),
            "refer": (Referring(scenes), 2.0),
            "region": (RegionCaptioning(scenes), 1.5),
            "relation": (Relationship(scenes), 2.0),
            "segment": (Segmentation(scenes), 5.0),
            "depth": (Depth(scenes), 5.0),
            "inpaint": (Inpainting(scenes), 8.0),
            "paint": (Synthesis(scenes), 5.0),
            "film": (TextClassification(films, options=("positive", "negative")), 3.0),
            "language": (TextClassification(headings, options=("english", "german")), 0.5),
        },
        rates="equal",
    )
