"""Unified-IO base fine-tuned on a task of one's own: the decade in which a photograph was taken.

The task is the class below: its prompt, the features that it reads, its target and its metric. The
folder of data has `train.jsonl` and `dev.jsonl`, an object a line with the path of a picture beside
the file and a year, such as {"image": "1931/harbour.jpg", "year": 1931}. The weights are a run, or
the published file with T5's `spiece.model` beside it. The rate is T5's of fine-tuning, 0.001.

    jaxformers describe experiments/unified_io/finetune.py --data photographs --example decade
    jaxformers train experiments/unified_io/finetune.py --data photographs --weights base_1000k.bin
    jaxformers ask runs/unified_io_finetune "In which decade was the image taken ?" --image a.jpg
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxformers.data.mixture import Mixture
from jaxformers.models import UnifiedIOConfig, VQGANConfig
from jaxformers.tasks import TextImage
from jaxformers.tasks.text_image import JsonlRecords, Sample, TextImageTask
from jaxformers.tasks.text_image.base import exact_match
from jaxformers.training import Adafactor, Checkpointing, Experiment, T5Schedule


@dataclass(frozen=True)
class Decade(TextImageTask):
    """The decade of a photograph: features `image` and `year`."""

    PROMPT: ClassVar[str] = "In which decade was the image taken ?"
    FEATURES: ClassVar[tuple[str, ...]] = ("image", "year")
    BEST: ClassVar[str] = "accuracy"

    def sample(self, record: dict[str, Any], word: int) -> Sample:
        """The year, rounded down to ten, as target."""
        decade = f"{int(record['year']) // 10 * 10}s"
        return Sample(self.PROMPT, record["image"], text=decade, truth=(decade,))

    def metrics(self, answers: Sequence[str], truths: Sequence[Any]) -> dict[str, float]:
        """`accuracy` in percent."""
        return {"accuracy": exact_match(answers, truths)}


def experiment(data: str = "photographs", weights: str = "base_1000k.bin") -> Experiment:
    """The run on the folder `data`, from `weights`."""
    return Experiment(
        name="unified_io_finetune",
        task=TextImage(
            model=UnifiedIOConfig.base(image_tokenizer=VQGANConfig.f16_16384()),
            mixture=Mixture({"decade": Decade(JsonlRecords(f"{data}/train.jsonl"))}),
            dev=Mixture({"decade": Decade(JsonlRecords(f"{data}/dev.jsonl"))}),
            rows=128,
            text_length=32,
            target_length=8,
            bucket_by_modality=True,
            weights=weights,
            workers=8,
        ),
        steps=10_000,
        optimizer=Adafactor(),
        schedule=T5Schedule(constant=1_000_000),  # 0.001 throughout
        clip_norm=1.0,
        frozen=("image_tokenizer/.*",),
        evaluate_every=1000,
        checkpoint=Checkpointing(every=1000, keep_best=1, best="dev_decade_accuracy"),
    )
