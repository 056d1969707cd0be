"""Answers as spans of a text: SQuAD and sets in its form ("BERT", sections 4.2 and 4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxformers.data import Batch
from jaxformers.data.pipeline.fixed_length import RowPlan
from jaxformers.data.text.questions import Questions
from jaxformers.data.text.squad import BundledQuestions
from jaxformers.data.text.windows import Windows, WindowSize
from jaxformers.errors import ConfigError
from jaxformers.fields import FiniteFloat, NonNegativeInt, PositiveInt
from jaxformers.layers import Execution
from jaxformers.models import BertConfig, BertForSpanExtraction
from jaxformers.tasks.base import Loss, Variables
from jaxformers.tasks.evaluator import Comparison
from jaxformers.tasks.losses import negative_log_likelihood
from jaxformers.tasks.processor import Processor
from jaxformers.tasks.published_comparison import compare_with_published_squad, is_squad_v2
from jaxformers.tasks.task_data import PlannedData
from jaxformers.tasks.text.bert_inputs import (
    INPUTS,
    FineTunedBert,
    check_inputs,
    random_inputs,
    small_bert,
    states_on_small,
)
from jaxformers.tasks.text.span_evaluation import QuestionsConfig, SpanEvaluator
from jaxformers.tasks.text.vocabulary import EncoderTokenizer, run_tokenizer, word_pieces


@dataclass(frozen=True)
class SpanExtraction(FineTunedBert):
    """Learns where in a context the answer to a question starts and ends."""

    unit: ClassVar[str] = "windows"
    verb: ClassVar[str] = "answer"
    line: ClassVar[str] = "Who left?\tThe baker left at noon."

    model: BertConfig
    data: QuestionsConfig
    """Training questions; the first answer of each is learned."""
    dev: QuestionsConfig | None = None
    """Development questions: `exact` and `f1`, and with unanswerable ones the best threshold."""
    test: QuestionsConfig | None = None
    """Further questions, evaluated at the end: `test_exact` and so on."""
    length: PositiveInt = 384
    """Tokens of a window over the context, question and special ones included."""
    stride: PositiveInt = 128
    """Pieces from the start of one window to that of the next."""
    query_length: NonNegativeInt = 64
    """Pieces that a question is cut to."""
    rows: PositiveInt = 32
    """Windows in a batch."""
    n_best: PositiveInt = 20
    """Spans of each window that are looked at."""
    longest_answer: PositiveInt = 30
    """Most pieces of an answer that is predicted."""
    null_threshold: FiniteFloat = 0.0
    """"No answer" wins where its score exceeds the best span's by more than this (SQuAD 2.0)."""
    weights: str | None = None
    """BERT to start from: a published folder, a run, or a hub's name; None: none. One that was
    trained to answer, on TriviaQA say, keeps its head."""
    vocabulary: str | None = None
    """Folder of the WordPiece vocabulary; None: that of `weights`, or one trained on the data."""
    workers: NonNegativeInt = 0
    """Processes that prepare batches; 0: a thread."""

    def __post_init__(self):
        super().__post_init__()
        assert self.size  # it says what is wrong with it
        if self.length > self.model.max_length:
            raise ConfigError(
                f"windows of {self.length} tokens are longer than the model's "
                f"{self.model.max_length} positions; lower --task.length"
            )

    @property
    def size(self) -> WindowSize:
        """The size of the windows."""
        return WindowSize(self.length, self.stride, self.query_length)

    @property
    def best(self) -> str:
        """The F1, which the paper reports; empty without development questions."""
        return "f1" if self.dev is not None else ""

    # ------------------------------------------------------------------ model and loss

    def module(self, execution: Execution) -> BertForSpanExtraction:
        """BERT under two vectors."""
        return BertForSpanExtraction(self.model, execution)

    def batch_shapes(self) -> tuple[dict[str, jax.ShapeDtypeStruct], ...]:
        """The only shape of a batch."""
        wide = jax.ShapeDtypeStruct((self.rows, self.length), jnp.int32)
        flat = jax.ShapeDtypeStruct((self.rows,), jnp.int32)
        return (dict.fromkeys(INPUTS, wide) | dict.fromkeys(("starts", "ends", "window"), flat),)

    def loss(self, model, variables: Variables, batch, *, train: bool = False, rngs=None) -> Loss:
        """Mean cross-entropy of the two places; the softmax is over all tokens, padding included.

        A window without the answer has both places at [CLS]. As the published script does.
        """
        inputs = (batch[name] for name in INPUTS)
        out = model.apply(variables, *inputs, train=train, rngs=rngs)
        start = negative_log_likelihood(out.start_logits, batch["starts"])
        end = negative_log_likelihood(out.end_logits, batch["ends"])
        weight = jnp.asarray(start.shape[0], jnp.float32)
        return Loss((start.sum() + end.sum()) / 2, weight, {}, {})

    def example(self, seed: int) -> Batch:
        """Random tokens of two segments, padding at the end of most rows."""
        rng = np.random.default_rng(seed)
        inputs = random_inputs(rng, self.rows, self.length, self.model)
        real = inputs["attention_mask"].sum(1, keepdims=True)
        starts, ends = np.sort(rng.integers(0, real, (self.rows, 2)), axis=1).astype(np.int32).T
        return inputs | dict(starts=starts, ends=ends, window=np.arange(self.rows, dtype=np.int32))

    def probe(self, model, variables: Variables, batch) -> dict[str, jax.Array]:
        """Logits, and the encoder's states where all parameters are small."""
        inputs = [batch[name] for name in INPUTS]
        out = model.apply(variables, *inputs)
        return {
            "start logits": out.start_logits,
            "end logits": out.end_logits,
            "states on small parameters": states_on_small(model, variables, *inputs),
        }

    def units(self, batch: Batch) -> int:
        """The number of windows."""
        return len(batch["window"])

    # ------------------------------------------------------------------ data

    def open(self, folder: epath.Path, seed: int, host: int = 0) -> SpanData:
        """Opens the questions, takes or trains the vocabulary, and cuts the windows.

        Of development and test questions too, for their mistakes to show before training.
        """
        questions = self.data.open()
        size = self.model.vocab_size
        tokenizer = run_tokenizer(
            folder,
            host,
            size,
            lambda: self._new_tokenizer(questions),
            spare_rows=self.weights is not None,
        )
        check_inputs(self.model, tokenizer, pairs=True)
        windows = Windows(questions, tokenizer, self.size, training=True)
        self.evaluators()[0].open_sets(tokenizer, final=True)
        left_out = windows.skipped + questions.mismatched
        return SpanData(
            windows, RowPlan(windows, self.rows), Processor(tokenizer), self.workers, left_out
        )

    def _new_tokenizer(self, questions: Questions) -> EncoderTokenizer:
        texts = list(dict.fromkeys(text for q in questions for text in (q.context, q.question)))
        return word_pieces(self.vocabulary, self.weights, texts, self.model.vocab_size)

    # ------------------------------------------------------------------ evaluation

    def evaluators(self) -> tuple[SpanEvaluator]:
        """Exact match and F1 of the development questions, and when final of the test questions."""
        return (
            SpanEvaluator(
                dev=self.dev,
                test=self.test,
                size=self.size,
                rows=self.rows,
                n_best=self.n_best,
                longest_answer=self.longest_answer,
                null_threshold=self.null_threshold,
            ),
        )

    def published(self, metrics: Mapping[str, Any]) -> list[Comparison]:
        """SQuAD's table of the paper; none for the bundled questions."""
        return compare_with_published_squad(self.data, self.dev, metrics)

    # ------------------------------------------------------------------ rehearsal

    def rehearsal(self) -> SpanExtraction:
        """Four thousand parameters and a few dozen bundled questions."""
        # All positions are used, for the table's gradient to be summed whole.
        model = small_bert(self.model, vocab_size=151, max_length=48)
        impossible = is_squad_v2(self.data)
        return replace(
            self,
            model=model,
            data=BundledQuestions("train", 48, impossible),
            dev=BundledQuestions("held_out", 16, impossible),
            test=None,
            length=48,
            stride=16,
            query_length=16,
            rows=8,
            weights=None,
            vocabulary=None,
            workers=0,
        )


@dataclass
class SpanData(PlannedData):
    """Training windows, their plan, and the tokenizer."""

    left_out: int = 0
    """Questions that are not learned: their answer stands nowhere, or no piece stands for it."""

    def describe(self) -> str:
        """Questions, windows, steps an epoch, what was left out or is not learned to the letter."""
        left = f", {self.left_out:,} without an answer in the text left out" * bool(self.left_out)
        windows = self.store
        near = int(((windows.spans[:, 0] >= 0) & ~windows.exact).sum())
        near = f", {near:,} with an answer that ends inside a piece" * bool(near)
        return (
            f"{len(windows.asked):,} questions{left}{near}; {len(windows):,} windows, "
            f"{self.steps_per_epoch:,.1f} steps an epoch"
        )
