"""Unified-IO base, trained on all tasks at once ("Unified-IO", sections 3.2 and 3.3).

Paper: 500,000 updates of 2,048 examples from 95 data sets, after `pretrain_base`. Eight groups of
tasks have an eighth of the examples each, but image synthesis 3/16 and dense labels 1/16; within a
group, sets are drawn by the square roots of their sizes. 256 of a picture's 576 patches are read.
GRIT: base 55.9, large 60.7, XL 64.5. The rest is `pretrain_base`'s.

    jaxformers train experiments/unified_io/multitask_base.py --data gs://BUCKET/unified_io
    jaxformers describe experiments/unified_io/multitask_base.py --example coco_detect

`--task.mixture.without-missing True` goes on without the sets that are not there. The published
`base_1000k.bin` is one result of such a run: `--task.weights FOLDER` goes on from it.
"""

from dataclasses import replace

from pretrain_base import experiment as pretrain_base

from jaxformers.tasks.text_image import paper_mixture
from jaxformers.training import Experiment


def experiment(data: str = "data/unified_io") -> Experiment:
    """The experiment described above, on the data sets in the folder `data`."""
    recipe = pretrain_base()
    task = replace(
        recipe.task,
        mixture=paper_mixture(data),
        patches=256,
        tokenizer=None,
        image_tokenizer_weights=None,
        weights="runs/unified_io_pretrain_base",  # with both tokenizers
    )
    return replace(recipe, name="unified_io_multitask_base", task=task)
