"""Fine-tunes a pretrained BERT encoder on movie sentiment and compares it with a TF-IDF baseline.

    python benchmarks/bert_movies.py WEIGHTS --seeds 0 1 2

WEIGHTS is a folder of BERT weights, such as all-MiniLM-L6-v2. The splits are those of
`BundledMovies`. The baseline is logistic regression on TF-IDF features of unigrams and bigrams,
with the regularisation strength chosen on the development sentences.
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

STRENGTHS = (0.3, 1.0, 3.0, 10.0)  # inverse, scikit-learn's C


def baseline() -> float:
    """Test accuracy of logistic regression on TF-IDF features, in percent."""
    labels = BundledMovies().own
    sets = {split: BundledMovies(split).open(labels) for split in ("train", "dev", "test")}
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    features = {"train": vectorizer.fit_transform(sets["train"].texts)}
    features |= {split: vectorizer.transform(sets[split].texts) for split in ("dev", "test")}
    classifiers = [LogisticRegression(C=c, max_iter=1000) for c in STRENGTHS]
    for classifier in classifiers:
        classifier.fit(features["train"], sets["train"].labels)
    best = max(classifiers, key=lambda c: c.score(features["dev"], sets["dev"].labels))
    return 100 * best.score(features["test"], sets["test"].labels)


def experiment(weights: str, seed: int, epochs: float, rate: float, length: int) -> Experiment:
    """Fine-tuning of the encoder in `weights` with one seed."""
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
    accuracies = {"tf-idf": baseline()}
    print(f"TF-IDF and logistic regression: {accuracies['tf-idf']:.2f} %", flush=True)
    for seed in args.seeds:
        fine_tuning = experiment(args.weights, seed, args.epochs, args.rate, args.length)
        with tempfile.TemporaryDirectory() as folder:
            metrics = train(fine_tuning, Path(folder) / "run").evaluation.metrics
        accuracies[f"seed {seed}"] = metrics["test_accuracy"]
        print(f"seed {seed}: {metrics}", flush=True)
    scores = [accuracies[f"seed {seed}"] for seed in args.seeds]
    print(f"mean {statistics.mean(scores):.2f} % over {len(scores)} seeds")
    frame.keep(args.json, accuracies)


if __name__ == "__main__":
    main()
