"""BERT base fine-tuned on a GLUE task ("BERT", section 4.1 and table 1; appendix A.3).

Paper, GLUE's server: MNLI 84.6 / 83.4 (matched / mismatched), QQP 71.2 (F1), QNLI 90.5, SST-2
93.5, CoLA 52.1 (Matthews), STS-B 85.8 (Spearman), MRPC 88.9 (F1), RTE 66.4; large 86.7 / 85.9,
72.1, 92.7, 94.9, 60.5, 86.5, 89.3, 70.1. Development sets, cased base by another library: MNLI
83.9 / 84.1, QQP 87.5 (F1), QNLI 90.7, SST-2 92.3, CoLA 56.5, STS-B 88.5, MRPC 88.9 (F1), RTE 65.7.

3 epochs of 32 rows of 128 tokens, the best of the learning rates 5e-5, 4e-5, 3e-5 and 2e-5 on the
development set; BERT large on small sets wants several seeds. `tune` tries the paper's grid, keeps
the best and shows all results. In the paper a run takes at most an hour on one Cloud TPU (4 chips),
some hours on one GPU.

The task is one option: cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte or wnli. Its data is prepared
once, where a network is at hand, or taken from GLUE's own TSV files (--task.data.folder FOLDER):
    jaxformers prepare glue/mrpc
    jaxformers train experiments/bert/glue.py --task.data.task mrpc --name glue_mrpc
    jaxformers tune experiments/bert/glue.py --task.data.task mrpc --name glue_mrpc --seeds 0 1 2
which is the same as with `--try schedule.peak 5e-5 4e-5 3e-5 2e-5`.
The weights are fetched from Hugging Face's hub; --task.weights FOLDER takes others.
"""

from jaxformers.data import Glue
from jaxformers.models import BertConfig
from jaxformers.tasks import SequenceClassification
from jaxformers.training import BertAdam, BertLinear, Experiment


def grid() -> dict[str, tuple[float, ...]]:
    """The paper's learning rates, for `jaxformers tune`."""
    return {"schedule.peak": (5e-5, 4e-5, 3e-5, 2e-5)}


def experiment() -> Experiment:
    """The experiment described above."""
    return Experiment(
        name="glue",
        task=SequenceClassification(
            model=BertConfig.base(),
            data=Glue("mrpc"),
            length=128,
            rows=32,
            weights="google-bert/bert-base-uncased",
        ),
        steps=343,  # of MRPC; `epochs` decides for every task
        epochs=3,
        optimizer=BertAdam(),
        schedule=BertLinear(peak=2e-5, warmup_share=0.1),
        clip_norm=1.0,
    )
