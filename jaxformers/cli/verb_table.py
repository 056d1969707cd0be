"""The verbs of the `jaxformers` command: the function that runs each, its arguments, its help."""

from __future__ import annotations

import argparse

from jaxformers.cli import completion, plan, verbs
from jaxformers.cli.image_verb_table import IMAGE_VERBS
from jaxformers.cli.options import (
    CODE,
    FOLDER,
    PROCESSES,
    REHEARSE,
    RESTARTS,
    Verb,
    number,
    whole_number,
)
from jaxformers.cli.stdin_verb_table import STDIN_VERBS


def _print_completion(args: argparse.Namespace, fields: list[str]) -> None:
    """Prints the completion script of a shell."""
    print(completion.script(args.shell, VERBS), end="")


VERBS: dict[str, Verb] = {
    "train": Verb(
        verbs.train,
        "train what an experiment file describes, or go on where it stopped",
        ("FILE",),
        """Trains the experiment that FILE's experiment() returns. The run's folder holds all of
it; the same command again resumes from its newest good checkpoint. Ctrl-C or SIGTERM
saves and stops; a second one stops at once.

Exit status: 0 finished; 75 stopped with a checkpoint, or hosts of the pod did not come; 134
another host was lost; 2 a mistake. The same command goes on after 75, 134 and 137 (killed), and
with --restarts it does so by itself, on every host of a pod.

Any field of the experiment may be given by its path: train FILE --help lists them. It holds for
every run that follows, too, where the run has the field; --after.NAME.FIELD sets it for the run
NAME alone. The plan of all runs is printed before the first.

examples:
  jaxformers train experiments/translation/demo.py
  jaxformers train experiments/translation/demo.py --steps 200 --task.model.width 64
  jaxformers train experiments/translation/wmt14_en_de_base.py --rehearse --processes 4
  jaxformers train my.py --folder gs://bucket/runs/my --mesh.fsdp 4 --schedule cosine""",
        (FOLDER, REHEARSE, PROCESSES, RESTARTS),
        fields=True,
    ),
    "demo": Verb(
        verbs.demo,
        "train a small model on bundled data, in minutes on two cores",
        (),
        """Trains one of the demonstrations, which need no download: a Transformer that translates
English to German, or that of another family. They are experiment files like any other
(experiments/FAMILY/demo.py), so fields may be set and the same command goes on where it stopped.

examples:
  jaxformers demo
  jaxformers demo --family vit
  jaxformers demo --rehearse      in seconds, to see that all is installed""",
        (
            (
                "--family",
                dict(
                    metavar="FAMILY",
                    default="translation",
                    help="translation (default), bert, clip, mae, resnet, unified_io, vit",
                ),
            ),
            FOLDER,
            REHEARSE,
            PROCESSES,
            RESTARTS,
        ),
        fields=True,
    ),
    "evaluate": Verb(
        verbs.evaluate,
        "evaluate finished runs on their test set",
        ("RUN...",),
        """Evaluates the final weights of one run or several, and sets the results side by side.
Several classifiers, or several that answer questions, on the same data are also evaluated as
an ensemble: "ensemble" is the mean of their outputs. Predictions for test sets whose labels are
not public are written as GLUE's server takes them. Fields of the experiment may be changed,
such as the data or the search.

examples:
  jaxformers evaluate runs/demo
  jaxformers evaluate runs/glue-tune/peak=*     after a tune with --keep-all
  jaxformers evaluate runs/base runs/big --task.search.beams 1""",
        (CODE,),
        fields=True,
    ),
    "tune": Verb(
        verbs.tune,
        "try a grid of values, keep the best run, show all results",
        ("FILE",),
        """Trains the experiment once for every combination of the tried values and the seeds, each
an ordinary run in a folder named by its values, and takes the one that is best on the
development set. The checkpoints and weights of the others are removed. The same command
again goes on where it stopped; more values or seeds may be added. All results, with mean
and deviation over the seeds, are in tune.md and tune.json.

Without --try, the grid is what grid() in FILE returns. Any other field of the experiment may
be given by its path, behind these options.

examples:
  jaxformers tune experiments/bert/glue.py
  jaxformers tune experiments/bert/glue.py --try schedule.peak 5e-5 4e-5 3e-5 2e-5
  jaxformers tune my.py --try schedule.peak 1e-4 3e-5 --try task.rows 16 32 --seeds 0 1 2""",
        (
            (
                "--try",
                dict(
                    metavar=("FIELD", "VALUE"),
                    nargs="+",
                    action="append",
                    dest="tried",
                    help="a field by its path, and the values to try; may be given again",
                ),
            ),
            (
                "--seeds",
                dict(
                    metavar="N",
                    nargs="+",
                    type=whole_number,
                    help="train every setting with each of these seeds (default: the file's)",
                ),
            ),
            ("--folder", dict(metavar="DIR", help="folder of all runs (default: runs/NAME-tune)")),
            ("--keep-all", dict(action="store_true", help="keep all weights and checkpoints")),
            REHEARSE,
        ),
        fields=True,
    ),
    **STDIN_VERBS,
    **IMAGE_VERBS,
    "serve": Verb(
        verbs.serve,
        "a page to try models on",
        ("RUN...",),
        """Opens a page on this machine with a tab for each model and for what it can do: translate,
fill masks, classify, answer, tag, compare sentences; classify pictures, also into classes named on
the page, and show where the classes lie; find pictures by words; ask Unified-IO. RUN is as for the
other verbs. It needs the extra `serve`.

The page listens on this machine alone; another --host lets others of the network use it, without a
password.

examples:
  jaxformers serve runs/demo runs/vit_demo
  jaxformers serve openai/clip-vit-base-patch32 --pictures photos/""",
        (
            ("--pictures", dict(metavar="DIR", help="pictures that a CLIP finds by words")),
            ("--host", dict(metavar="ADDRESS", help="where to listen (default: 127.0.0.1)")),
            ("--port", dict(metavar="N", type=whole_number, help="the port (default: 7860)")),
            CODE,
        ),
    ),
    "compare": Verb(
        verbs.compare,
        "runs side by side: results against time, FLOPs and parameters",
        ("RUN...",),
        """Prints a table of what each run reached and took, and draws the metric over the time and
the FLOPs of training, and its last value over the parameters.

example:
  jaxformers compare runs/vit_demo runs/resnet_demo --metric dev_top1 --output compared.png""",
        (
            (
                "--metric",
                dict(
                    metavar="NAME", default="dev_top1", help="metric to compare (default: dev_top1)"
                ),
            ),
            (
                "--output",
                dict(
                    metavar="FILE",
                    default="compared.png",
                    help="the picture (default: compared.png)",
                ),
            ),
            CODE,
        ),
    ),
    "prepare": Verb(
        verbs.prepare,
        "prepare a public data set",
        ("NAME",),
        """Downloads and prepares a public TFDS data set into a folder or bucket path, where the
network allows. Training then reads it without TensorFlow.

example:
  jaxformers prepare wmt14_translate/de-en --data-dir ~/data""",
        (
            (
                "--data-dir",
                dict(metavar="DIR", required=True, help="folder or bucket path of the data"),
            ),
        ),
    ),
    "convert": Verb(
        verbs.convert,
        "write a run, or published weights, as a folder of weights",
        ("SOURCE", "TARGET"),
        """Reads SOURCE, a run's folder, a published folder or file, or a hub's name, and writes the
folder TARGET: config.json, model.safetensors and the files of the tokenizer or of the images'
preprocessing, as Hugging Face's classes load them (MarianMT, BERT and RoBERTa's family, CLIP,
SigLIP, ViT, DeiT, DINOv2, ViTMAE, ResNet, BiT) where that expresses the model exactly, else in our
own format.

examples:
  jaxformers convert runs/demo demo-marian
  jaxformers convert ViT-B_16.npz vit-base
  jaxformers convert checkpoint.safetensors vit-base --weights model_ema""",
        (
            (
                "--weights",
                dict(
                    metavar="NAME",
                    help="which of several sets of weights in a file of a training run",
                ),
            ),
            CODE,
        ),
    ),
    "describe": Verb(
        verbs.describe,
        "the network, its parameters and where they lie",
        ("FILE_OR_RUN",),
        """Prints the network as a tree, and every parameter's shape, type, axes and bytes on each
device of the experiment's mesh, without allocating any of it. With --example it prints examples of
one task of a mixture in place of these: prompt, pictures, target.

examples:
  jaxformers describe experiments/translation/wmt14_en_de_big.py
  jaxformers describe runs/demo --mesh.tensor 2""",
        (
            (
                "--devices",
                dict(
                    metavar="N",
                    type=whole_number,
                    help="lay out for N devices (default: the local ones)",
                ),
            ),
            ("--example", dict(metavar="TASK", help="print examples of this task of a mixture")),
            CODE,
        ),
        fields=True,
    ),
    "plan": Verb(
        plan.plan,
        "what a run needs on a TPU pod: memory, time, money, without a TPU",
        ("FILE",),
        """Compiles the step that `train` runs for a TPU pod, with the real TPU compiler, on this
machine; needs no TPU and no data. Prints whether it fits, a range for the time of a step and of
the run, what chips send each other, and known wastes. Any field of the experiment may be given.
The exit status is 1 when it does not fit.

A topology is a generation and a shape, v2 to v6e or tpu7x: v5e:16x16, v5p:4x4x4, or 2xv5e:16x16
for two slices. Without one the plan is for the devices here, such as a GPU. --search tries
meshes and ways to save memory, and prints the command that runs the best. --quick takes a
quarter of the time; its memory is within a few percent, and what is near the limit is done in full.

examples:
  jaxformers plan experiments/bert/pretrain_large.py --topology v5e:4x4 --price 1.2
  jaxformers plan experiments/vit/jft_h14.py --topology v5p:4x4x4 --mesh.fsdp 8 --picture h14.png
  jaxformers plan my.py --topology v6e:2x4 --search""",
        (
            (
                "--topology",
                dict(metavar="NAME", help="such as v5e:16x16 (default: the local devices)"),
            ),
            (
                "--slices",
                dict(
                    metavar="N",
                    type=whole_number,
                    help="number of slices of that topology (default: 1)",
                ),
            ),
            (
                "--price",
                dict(metavar="X", type=number, help="price of a chip-hour, in any currency"),
            ),
            ("--search", dict(action="store_true", help="try meshes and ways to save memory")),
            ("--quick", dict(action="store_true", help="compile at the least effort")),
            ("--json", dict(action="store_true", help="print one JSON object instead")),
            ("--picture", dict(metavar="FILE", help="write a picture of the memory by kind")),
        ),
        fields=True,
    ),
    "check": Verb(
        verbs.check,
        "after changing a model: does it still shard, train and match?",
        ("FILE",),
        """Answers in a minute, a line for each part, on eight emulated devices: every parameter
has its sharding row and divides, the model gives the numbers of its golden file, it trains
the same on meshes as on one device, and every collective of its step is explained. The
exit status is 1 when a part fails.

example:
  jaxformers check experiments/translation/demo.py""",
        (("--update", dict(action="store_true", help="write the golden file anew")),),
        fields=True,
    ),
    "completion": Verb(
        _print_completion,
        "print a script that completes verbs and options in a shell",
        ("SHELL",),
        """Prints the completion script of SHELL: bash, zsh or fish.

examples:
  jaxformers completion bash >> ~/.bashrc
  jaxformers completion zsh >> ~/.zshrc
  jaxformers completion fish > ~/.config/fish/completions/jaxformers.fish""",
    ),
}
