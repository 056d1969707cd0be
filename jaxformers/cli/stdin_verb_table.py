"""The verbs that answer standard input line by line: their functions, arguments and help."""

from __future__ import annotations

from jaxformers.cli import stdin_verbs
from jaxformers.cli.options import LINES, TRUNCATE, Verb, number, whole_number

STDIN_VERBS: dict[str, Verb] = {
    "translate": Verb(
        stdin_verbs.translate,
        "translate standard input, line by line",
        ("RUN",),
        """Translates standard input to standard output: one line out for each line in, empty lines
kept. RUN is a run's folder, one with published weights, or a hub's name. Lines are answered as
they come, so it works in a pipe and by hand. Published weights are searched as their
generation_config.json states, unless --beams or --alpha says otherwise. With --n-best a line
holds the best translations, each with a tab and its score behind it, tabs between them.

examples:
  echo "Click the button." | jaxformers translate runs/demo
  jaxformers translate runs/demo --beams 1 < english.txt > german.txt
  jaxformers translate Helsinki-NLP/opus-mt-en-de --n-best 3 --truncate < english.txt""",
        (
            (
                "--beams",
                dict(
                    metavar="N",
                    type=whole_number,
                    help="beam width, 1 is greedy (default: stated, or 4)",
                ),
            ),
            (
                "--alpha",
                dict(metavar="A", type=number, help="length penalty (default: stated, or 0.6)"),
            ),
            (
                "--n-best",
                dict(metavar="N", type=whole_number, help="so many translations, with scores"),
            ),
            (
                "--no-repeat-ngram",
                dict(
                    metavar="N", type=whole_number, help="no N tokens come twice in a translation"
                ),
            ),
            TRUNCATE,
            *LINES,
        ),
    ),
    "fill-mask": Verb(
        stdin_verbs.fill_mask,
        "words for every mask in standard input",
        ("RUN",),
        """Reads texts from standard input, a line each, with any number of masks in them: [MASK] in
BERT and DistilBERT, <mask> in RoBERTa. For each line it prints the likeliest words of each mask
with their probabilities, masks divided by tabs; a word that begins with ## goes on with the word
before it, of RoBERTa one that does not begin with a blank. RUN is a run's folder, one with
published weights, or a hub's name.

examples:
  echo "The economy is [MASK]." | jaxformers fill-mask runs/bert
  jaxformers fill-mask google-bert/bert-base-uncased --top 1 < texts.txt""",
        (
            ("--top", dict(metavar="N", type=whole_number, default=5, help="words for each mask")),
            *LINES,
        ),
    ),
    "classify": Verb(
        stdin_verbs.classify,
        "the class of every line of standard input",
        ("RUN",),
        """Reads texts from standard input, a line each, or pairs of texts with a tab between them.
For each it prints the likeliest class, a tab, and its probability; of a regression the word
score and the number. RUN is a run's folder, one with published weights, or a hub's name.

examples:
  echo "A charming film." | jaxformers classify runs/movies
  jaxformers classify runs/mnli < premises_and_hypotheses.tsv > classes.tsv""",
        (
            TRUNCATE,
            *LINES,
        ),
    ),
    "answer": Verb(
        stdin_verbs.answer,
        "answer questions in standard input from their contexts",
        ("RUN",),
        """Reads a question, a tab and its context from each line of standard input. For each it
prints the answer, its score, and where it begins and ends in the context (in characters,
from 0), with tabs between them. RUN is a run's folder, one with published weights, or a
hub's name.

examples:
  printf "Who left?\\tThe baker left at noon.\\n" | jaxformers answer runs/squad
  jaxformers answer runs/squad2 --null-threshold 0 < questions.tsv > answers.tsv""",
        (
            (
                "--longest",
                dict(metavar="N", type=whole_number, default=30, help="most pieces of an answer"),
            ),
            (
                "--null-threshold",
                dict(
                    metavar="X",
                    type=number,
                    help="no answer where its score is higher by more than X (SQuAD 2.0)",
                ),
            ),
            *LINES,
        ),
    ),
    "tag": Verb(
        stdin_verbs.tag,
        "the named entities of every line of standard input",
        ("RUN",),
        """Reads texts from standard input, a line each. For each line it prints the entities in it:
each one's text, its type, its score, and where it begins and ends in the line (in characters,
from 0), with tabs between them; an empty line where there is none. RUN is a run's folder, one
with published weights, or a hub's name.

examples:
  echo "Ada Lovelace was born in London." | jaxformers tag runs/conll
  jaxformers tag dslim/bert-base-NER --aggregation simple < texts.txt > entities.tsv""",
        (
            (
                "--aggregation",
                dict(
                    choices=("simple", "first", "average", "max"),
                    default="first",
                    help="how a word's tokens agree on a tag (default: first)",
                ),
            ),
            TRUNCATE,
            *LINES,
        ),
    ),
    "embed": Verb(
        stdin_verbs.embed,
        "a vector for every line of standard input",
        ("RUN",),
        """Prints for each line of standard input a vector, its numbers divided by tabs, or writes
all vectors as a NumPy array [lines, width]. Folders of sentence-transformers say how
tokens become one vector; otherwise it is their mean. A text that is too long is cut. RUN
is a run's folder, one with published weights, or a hub's name.

examples:
  echo "A charming film." | jaxformers embed sentence-transformers/all-MiniLM-L6-v2
  jaxformers embed runs/bert --normalize --output vectors.npy < texts.txt""",
        (
            ("--output", dict(metavar="FILE.npy", help="write an array there instead")),
            (
                "--pooling",
                dict(
                    metavar="MODE",
                    choices=("mean", "cls", "max", "mean_sqrt_len", "weightedmean", "lasttoken"),
                    help="how tokens become one vector (default: as RUN's files state)",
                ),
            ),
            (
                "--normalize",
                dict(action="store_true", default=None, help="bring vectors to length 1"),
            ),
            *LINES,
        ),
    ),
}
