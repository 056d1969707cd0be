"""A contrastive run of some thousand parameters on emoji; its loss is the ring's."""

from jaxformers.data.captions import BundledEmoji
from jaxformers.data.images import Augmentation, Preprocessing, WholeImage
from jaxformers.models import CLIPConfig, CLIPImageConfig, CLIPTextConfig
from jaxformers.sharding import MeshConfig
from jaxformers.tasks import Contrastive
from jaxformers.training import Adam, Checkpointing, Cosine, Experiment, Logging


def experiment(fsdp: int = 1) -> Experiment:
    """The run, on a mesh with so many devices along `fsdp`."""
    image = CLIPImageConfig(16, 8, 3, 16, 4, 32, 1, projection=8)
    text = CLIPTextConfig(300, 12, 16, 4, 32, 1, pooling="eos", eos_id=3, projection=8)
    return Experiment(
        name="tiny_contrastive",
        task=Contrastive(
            CLIPConfig(image, text),
            BundledEmoji(("twemoji",), limit=120),
            Augmentation(16, crop=WholeImage(), flip=0.0),
            Preprocessing(16),
            rows=32,
            form="ring",
            duplicates="masked",
        ),
        steps=8,
        optimizer=Adam(0.9, 0.98, 1e-6, 0.2, decays="matrices"),
        schedule=Cosine(2e-3, 2),
        mesh=MeshConfig(data=-1, fsdp=fsdp),
        checkpoint=Checkpointing(every=100),
        logging=Logging(every=1, tensorboard=False),
    )
