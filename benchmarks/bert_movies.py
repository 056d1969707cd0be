"""Positive and negative sentences about films: a published encoder fine-tuned, and what it beats.

    python benchmarks/bert_movies.py WEIGHTS --seeds 0 1 2

WEIGHTS is a folder of BERT weights, such as all-MiniLM-L6-v2. The split is `BundledMovies`' own.
The floor is logistic regression on TF-IDF of words and pairs of words, its strength chosen on the
development sentences.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import frame
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from jaxformers.data import BundledMovies
from jaxformers.pretrained import load_pretrained
from jaxformers.tasks import SequenceClassification
from jaxformers.training import BertAdam, BertLinear, Checkpointing, Experiment, Logging
from jaxformers.training.loop import train

STRENGTHS = (0.3, 1.0, 3.0, 10.0)


def floor() -> float:
    """Test accuracy in percent of TF-IDF and logistic regression."""
    own = BundledMovies().own
    sets = {split: BundledMovies(split).open(own) for split in ("train", "dev", "test")}
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    words = {"train": vectors.fit_transform(sets["train"].texts)}
    words |= {split: vectors.transform(sets[split].texts) for split in ("dev", "test")}
    fits = [LogisticRegression(C=c, max_iter=1000) for c in STRENGTHS]
    for fit in fits:
        fit.fit(words["train"], sets["train"].labels)
    best = max(fits, key=lambda fit: fit.score(words["dev"], sets["dev"].labels))
    return 100 * best.score(words["test"], sets["test"].labels)


def experiment(weights: str, seed: int, epochs: float, rate: float, length: int) -> Experiment:
    """One fine-tuning of the encoder in `weights`."""
    model, _ = load_pretrained(weights)
    return Experiment(
        name=f"movies_{seed}",
        task=SequenceClassification(
            model=replace(model.config, pooler=True, labels=2, label_names=()),
            data=BundledMovies("train"),
            length=length,
            rows=32,
            weights=weights,
        ),
        steps=1,
        epochs=epochs,
        seed=seed,
        optimizer=BertAdam(),
        schedule=BertLinear(peak=rate, warmup_share=0.1),
        clip_norm=1.0,
        checkpoint=Checkpointing(every=100_000, keep_last=1),
        logging=Logging(every=25),
    )


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("weights")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--length", type=int, default=48)
    args = parser.parse_args()
    found = {"tf-idf": floor()}
    print(f"TF-IDF and logistic regression: {found['tf-idf']:.2f} %", flush=True)
    for seed in args.seeds:
        made = experiment(args.weights, seed, args.epochs, args.rate, args.length)
        with tempfile.TemporaryDirectory() as folder:
            metrics = train(made, Path(folder) / "run").evaluation.metrics
        found[f"seed {seed}"] = metrics["test_accuracy"]
        print(f"seed {seed}: {metrics}", flush=True)
    scores = [found[f"seed {seed}"] for seed in args.seeds]
    print(f"mean {statistics.mean(scores):.2f} % over {len(scores)} seeds")
    frame.keep(args.json, found)


if __name__ == "__main__":
    main()
