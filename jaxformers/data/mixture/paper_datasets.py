"""The data sets of "Unified-IO" (Lu et al. 2022), section 3.2: where each comes from, and licence.

After the paper's table 1 and the descriptions of its tasks; the authors released no list that a
program could read, so the choice of names within a task is this library's reading of the text.
A licence is that of the annotations as their publishers state it; images often have one of their
own.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from jaxformers.errors import DataError, did_you_mean

Layout = Literal["tfds", "folder", "parquet", "jsonl"]


class PaperDataset(NamedTuple):
    """A data set of the paper.

    Attributes:
        name: in the mixture.
        tasks: that it feeds.
        layout: how it is read: by its TFDS name, from a folder of files, from Parquet or JSON
            Lines.
        tfds: its name in TensorFlow Datasets; empty where it has none.
        licence: of the annotations.
        source: where it is published.
    """

    name: str
    tasks: tuple[str, ...]
    layout: Layout
    tfds: str
    licence: str
    source: str


_IMAGE_TEXT = "caption", "synthesis"
_COCO = "detect", "locate", "categorise", "segment", "inpaint", "segment_synthesis"
_QA, _CLASSIFY, _SUMMARISE = ("text_answer",), ("text_classify",), ("summarise",)
_CC_BY, _CC_BY_SA, _NC = "CC BY 4.0", "CC BY-SA 4.0", "non-commercial research"
_GLUE, _SUPER = "see each set's own", "see each set's own"

# name; tasks; layout; TFDS name; licence; source
_ROWS: tuple[tuple[str, tuple[str, ...], Layout, str, str, str], ...] = (
    # Pre-training: text and image denoising.
    ("c4", ("text_denoise",), "tfds", "c4/en", "ODC-BY", "commoncrawl.org"),
    ("wikipedia", ("text_denoise",), "tfds", "wikipedia", "CC BY-SA 3.0", "dumps.wikimedia.org"),
    ("imagenet21k", ("image_denoise", "classify", "synthesis"), "folder", "", _NC, "image-net.org"),
    ("yfcc15m", ("image_denoise", "text_denoise"), "parquet", "", "CC, an image", "yfcc100m"),
    # Image synthesis, captioning.
    ("redcaps", _IMAGE_TEXT, "jsonl", "", _CC_BY, "redcaps.xyz"),
    ("cc12m", (*_IMAGE_TEXT, "image_denoise"), "parquet", "", "free use", "conceptual-12m"),
    ("cc3m", _IMAGE_TEXT, "parquet", "", "free use", "ai.google.com/research/ConceptualCaptions"),
    ("sbu_captions", _IMAGE_TEXT, "jsonl", "", "unstated", "cs.rice.edu/~vo9/sbucaptions"),
    ("coco_captions", _IMAGE_TEXT, "tfds", "coco_captions", _CC_BY, "cocodataset.org"),
    ("vizwiz_captions", ("caption",), "jsonl", "", _CC_BY, "vizwiz.org"),
    ("textcaps", ("caption",), "jsonl", "", _CC_BY, "textvqa.org/textcaps"),
    ("nocaps", ("caption",), "jsonl", "", _CC_BY, "nocaps.org"),
    ("localized_narratives", ("synthesis",), "jsonl", "", _CC_BY, "localized-narratives"),
    # Detection, localisation, segmentation, key points, depth, normals.
    ("coco", _COCO, "tfds", "coco/2017", _CC_BY, "cocodataset.org"),
    ("coco_keypoints", ("keypoints",), "jsonl", "", _CC_BY, "cocodataset.org"),
    ("coco_panoptic", ("segment_synthesis",), "tfds", "coco/2017_panoptic", _CC_BY, "cocodataset"),
    ("lvis", ("segment", "segment_synthesis", "detect"), "tfds", "lvis", _CC_BY, "lvisdataset.org"),
    ("open_images", _COCO, "tfds", "open_images_v4", _CC_BY, "storage.googleapis.com/openimages"),
    (
        "visual_genome",
        ("locate", "categorise", "region_caption", "relate", "vqa", "inpaint"),
        "jsonl",
        "",
        _CC_BY,
        "visualgenome.org",
    ),
    ("refcoco", ("refer",), "tfds", "ref_coco/refcoco_unc", "Apache 2.0", "lichengunc/refer"),
    ("refcoco_plus", ("refer",), "tfds", "ref_coco/refcocoplus_unc", "Apache 2.0", "refer"),
    ("refcocog", ("refer",), "tfds", "ref_coco/refcocog_umd", "Apache 2.0", "lichengunc/refer"),
    ("nyu_depth_v2", ("depth",), "tfds", "nyu_depth_v2", "unstated", "cs.nyu.edu/~silberman"),
    ("framenet", ("normals",), "folder", "", _NC, "github.com/hjwdzh/FrameNet"),
    ("blended_mvs", ("normals",), "folder", "", _CC_BY, "github.com/YoYo000/BlendedMVS"),
    # Image classification.
    ("imagenet", ("classify", "synthesis"), "tfds", "imagenet2012", _NC, "image-net.org"),
    ("places365", ("classify",), "tfds", "places365_small", "CC BY", "places2.csail.mit.edu"),
    ("sun397", ("classify",), "tfds", "sun397", "unstated", "vision.princeton.edu/projects/SUN"),
    ("inaturalist", ("classify",), "tfds", "i_naturalist2018", _NC, "inaturalist"),
    ("birds", ("classify",), "tfds", "caltech_birds2011", _NC, "vision.caltech.edu"),
    # Vision and language.
    ("vqa_v2", ("vqa",), "jsonl", "", _CC_BY, "visualqa.org"),
    ("okvqa", ("vqa",), "jsonl", "", "unstated", "okvqa.allenai.org"),
    ("a_okvqa", ("vqa",), "jsonl", "", "Apache 2.0", "allenai.org/project/a-okvqa"),
    ("vizwiz_vqa", ("vqa",), "jsonl", "", _CC_BY, "vizwiz.org"),
    ("gqa", ("vqa",), "jsonl", "", _CC_BY, "visualreasoning.net"),
    ("vcr", ("vqa",), "jsonl", "", "own terms", "visualcommonsense.com"),
    ("visual7w", ("vqa",), "jsonl", "", "MIT", "ai.stanford.edu/~yukez/visual7w"),
    ("tdiuc", ("vqa",), "jsonl", "", "unstated", "kushalkafle.com/projects/tdiuc"),
    ("vizwiz_grounding", ("grounded_vqa",), "jsonl", "", _CC_BY, "vizwiz.org"),
    ("snli_ve", ("entail_image",), "jsonl", "", "BSD 3-clause", "necla-ml/SNLI-VE"),
    ("viscomet", ("commonsense",), "jsonl", "", "own terms", "visualcomet.xyz"),
    ("swig", ("situation",), "jsonl", "", "MIT", "prior.allenai.org/projects/gsr"),
    ("open_images_vrd", ("relate",), "jsonl", "", _CC_BY, "storage.googleapis.com/openimages"),
    # Question answering on text.
    ("squad", _QA, "tfds", "squad/v1.1", _CC_BY_SA, "rajpurkar.github.io/SQuAD-explorer"),
    ("squad_v2", _QA, "tfds", "squad/v2.0", _CC_BY_SA, "rajpurkar.github.io/SQuAD-explorer"),
    ("boolq", _QA, "tfds", "super_glue/boolq", "CC BY-SA 3.0", "boolean-questions"),
    ("multirc", _QA, "tfds", "super_glue/multirc", "own terms", "cogcomp.seas.upenn.edu/multirc"),
    ("record", _QA, "tfds", "super_glue/record", "own terms", "sheng-z.github.io/ReCoRD"),
    ("copa", _QA, "tfds", "super_glue/copa", "BSD 2-clause", "people.ict.usc.edu/~gordon"),
    ("cosmos_qa", _QA, "tfds", "cosmos_qa", _CC_BY, "wilburone.github.io/cosmos"),
    ("openbookqa", _QA, "tfds", "openbookqa", "Apache 2.0", "allenai.org/data/open-book-qa"),
    ("arc", _QA, "tfds", "ai2_arc", _CC_BY_SA, "allenai.org/data/arc"),
    ("piqa", _QA, "tfds", "piqa", "AFL 3.0", "yonatanbisk.com/piqa"),
    ("commonsense_qa", _QA, "jsonl", "", "MIT", "tau-nlp.org/commonsenseqa"),
    ("social_iqa", _QA, "jsonl", "", _CC_BY, "allenai.org/data/socialiqa"),
    ("race", _QA, "tfds", "race", _NC, "cs.cmu.edu/~glai1/data/race"),
    ("drop", _QA, "tfds", "drop", _CC_BY_SA, "allenai.org/data/drop"),
    ("natural_questions", _QA, "tfds", "natural_questions", "CC BY-SA 3.0", "ai.google.com"),
    ("trivia_qa", _QA, "tfds", "trivia_qa", "Apache 2.0", "nlp.cs.washington.edu/triviaqa"),
    ("coqa", _QA, "tfds", "coqa", "own terms", "stanfordnlp.github.io/coqa"),
    ("quac", _QA, "tfds", "quac", _CC_BY_SA, "quac.ai"),
    ("hotpot_qa", _QA, "jsonl", "", _CC_BY_SA, "hotpotqa.github.io"),
    ("winogrande", _QA, "tfds", "winogrande", "CC BY", "winogrande.allenai.org"),
    ("hellaswag", _QA, "tfds", "hellaswag", "MIT", "rowanzellers.com/hellaswag"),
    # Classification and entailment of text.
    ("cola", _CLASSIFY, "tfds", "glue/cola", _GLUE, "gluebenchmark.com"),
    ("sst2", _CLASSIFY, "tfds", "glue/sst2", _GLUE, "gluebenchmark.com"),
    ("mrpc", _CLASSIFY, "tfds", "glue/mrpc", _GLUE, "gluebenchmark.com"),
    ("qqp", _CLASSIFY, "tfds", "glue/qqp", _GLUE, "gluebenchmark.com"),
    ("stsb", _CLASSIFY, "tfds", "glue/stsb", _GLUE, "gluebenchmark.com"),
    ("mnli", _CLASSIFY, "tfds", "glue/mnli", _GLUE, "gluebenchmark.com"),
    ("qnli", _CLASSIFY, "tfds", "glue/qnli", _GLUE, "gluebenchmark.com"),
    ("rte", _CLASSIFY, "tfds", "glue/rte", _GLUE, "gluebenchmark.com"),
    ("wnli", _CLASSIFY, "tfds", "glue/wnli", _GLUE, "gluebenchmark.com"),
    ("cb", _CLASSIFY, "tfds", "super_glue/cb", _SUPER, "super.gluebenchmark.com"),
    ("wic", _CLASSIFY, "tfds", "super_glue/wic", _SUPER, "super.gluebenchmark.com"),
    ("wsc", _CLASSIFY, "tfds", "super_glue/wsc", _SUPER, "super.gluebenchmark.com"),
    ("snli", _CLASSIFY, "tfds", "snli", _CC_BY_SA, "nlp.stanford.edu/projects/snli"),
    ("anli", _CLASSIFY, "tfds", "anli/r1", "CC BY-NC 4.0", "github.com/facebookresearch/anli"),
    ("scitail", _CLASSIFY, "tfds", "sci_tail", "Apache 2.0", "allenai.org/data/scitail"),
    ("paws", _CLASSIFY, "tfds", "paws_wiki", "own terms", "google-research-datasets/paws"),
    ("imdb", _CLASSIFY, "tfds", "imdb_reviews", "unstated", "ai.stanford.edu/~amaas"),
    ("ag_news", _CLASSIFY, "tfds", "ag_news_subset", _NC, "ag_news"),
    ("yelp", _CLASSIFY, "tfds", "yelp_polarity_reviews", "own terms", "yelp.com/dataset"),
    # Summarisation.
    ("gigaword", _SUMMARISE, "tfds", "gigaword", "unstated", "github.com/harvardnlp/sent-summary"),
    ("cnn_dailymail", _SUMMARISE, "tfds", "cnn_dailymail", "Apache 2.0", "abisee/cnn-dailymail"),
    ("xsum", _SUMMARISE, "tfds", "xsum", "MIT", "github.com/EdinburghNLP/XSum"),
    ("multi_news", _SUMMARISE, "tfds", "multi_news", "own terms", "Alex-Fabbri/Multi-News"),
)

PAPER_DATASETS = {row[0]: PaperDataset(*row) for row in _ROWS}


def missing_datasets(
    names: Iterable[str], folder: str | Path, *, without_missing: bool = False
) -> tuple[PaperDataset, ...]:
    """The data sets of `names` that are not in `folder`.

    A TFDS set is at `folder/NAME` by the first word of its TFDS name, any other at
    `folder/name`.

    Args:
        names: of `PAPER_DATASETS`.
        folder: of all data.
        without_missing: whether to return them, in place of an error.

    Raises:
        DataError: a name that the paper has not; or sets are missing, of which each is listed with
            its source.
    """
    missing = []
    for name in names:
        if name not in PAPER_DATASETS:
            hint = did_you_mean(name, list(PAPER_DATASETS))
            raise DataError(f"the paper has no data set {name!r}{hint}")
        dataset = PAPER_DATASETS[name]
        if not (Path(folder) / (dataset.tfds.split("/")[0] or name)).is_dir():
            missing.append(dataset)
    if missing and not without_missing:
        listed = ", ".join(
            f"{dataset.name} (TFDS {dataset.tfds})"
            if dataset.tfds
            else f"{dataset.name} ({dataset.source})"
            for dataset in missing
        )
        raise DataError(
            f"{folder} lacks {len(missing)} data sets: {listed}; go on without with without_missing"
        )
    return tuple(missing)
