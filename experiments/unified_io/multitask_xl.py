"""Unified-IO XL, trained on all tasks at once ("Unified-IO", sections 3.2 and 3.3).

Paper: batches of 1,024, every model divided over 4 devices, 128 such models in parallel; GRIT 64.5
(test set 64.3). The recipe is `multitask_base`'s; pre-training is `pretrain_base`'s with

    jaxformers train experiments/unified_io/pretrain_base.py --data gs://BUCKET/unified_io \\
        --name unified_io_pretrain_xl --task.rows 1024 --mesh.tensor 4 --remat full \\
        --task.model.width 2048 --task.model.heads 32 --task.model.feed-forward 5120 \\
        --task.model.encoder-layers 24 --task.model.decoder-layers 24 --task.model.segments 8
    jaxformers train experiments/unified_io/multitask_xl.py --data gs://BUCKET/unified_io
    jaxformers plan experiments/unified_io/multitask_xl.py --topology v3:16x16
"""

from dataclasses import replace

from multitask_base import experiment as multitask_base

from jaxformers.models import UnifiedIOConfig, VQGANConfig
from jaxformers.sharding import MeshConfig
from jaxformers.training import Experiment


def experiment(data: str = "data/unified_io") -> Experiment:
    """The experiment described above, on the data sets in the folder `data`."""
    recipe = multitask_base(data)
    task = replace(
        recipe.task,
        model=UnifiedIOConfig.xl(image_tokenizer=VQGANConfig.f16_16384()),
        rows=1024,
        weights="runs/unified_io_pretrain_xl",
    )
    return replace(
        recipe, name="unified_io_multitask_xl", task=task, mesh=MeshConfig(tensor=4), remat="full"
    )
