"""Pre-training of BERT: masked words and the next sentence (Devlin et al. 2018, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxformers.data import (
    Batch,
    BundledDocuments,
    BundledHelpPages,
    JoinedDocuments,
    Phase,
    Pretraining,
    TextFolder,
    TfdsDocuments,
    TokenizedDocuments,
    document_sentences,
)
from jaxformers.errors import ConfigError
from jaxformers.fields import CheckedFields, NonNegativeInt, PositiveInt
from jaxformers.layers import Execution
from jaxformers.models import BertConfig, BertForPreTraining
from jaxformers.pretrained import load_text_backbone
from jaxformers.sharding import batch_multiple
from jaxformers.tasks.base import Loss, Task, Variables
from jaxformers.tasks.evaluator import Evaluation
from jaxformers.tasks.losses import label_smoothed_loss
from jaxformers.tasks.processor import Processor
from jaxformers.tasks.task_data import PlannedData
from jaxformers.tasks.text.bert_inputs import check_inputs, small_bert, states_on_small
from jaxformers.tasks.text.vocabulary import EncoderTokenizer, run_tokenizer, word_pieces
from jaxformers.text import InputTemplate

DocumentsConfig = BundledDocuments | BundledHelpPages | TextFolder | TfdsDocuments | JoinedDocuments
SLACK = 1e-5  # the released code adds it to the number of masked words


@dataclass(frozen=True)
class WordPieces(CheckedFields):
    """The WordPiece vocabulary; its size is the model's."""

    path: str | None = None
    """A folder with one; None: that of `weights`, else it is trained on the documents."""
    lowercase: bool = True
    """Whether a trained one is uncased."""
    sentences: PositiveInt = 2_000_000
    """It is trained on about so many sentences, from evenly spaced documents."""


@dataclass(frozen=True)
class MaskedLanguage(Task):
    """Learns to fill in masked words, and to tell whether one text follows another."""

    unit: ClassVar[str] = "tokens"
    verb: ClassVar[str] = "fill-mask"
    lowest_is_best: ClassVar[bool] = True

    model: BertConfig
    data: DocumentsConfig
    """Documents to learn from."""
    dev: DocumentsConfig | None = None
    """Documents of the evaluation: loss and accuracy of both tasks."""
    pretraining: Pretraining = Pretraining()
    """How examples are made of documents, in which phases."""
    vocabulary: WordPieces = WordPieces()
    weights: str | None = None
    """Weights to go on from, with the heads that they have: a folder, a run, or a hub's name; None:
    from scratch."""
    dev_batches: PositiveInt = 16
    """Batches of an evaluation, always the same."""
    workers: NonNegativeInt = 0
    """Processes that prepare batches; 0: a thread."""

    def __post_init__(self):
        super().__post_init__()
        for phase in self.pretraining.phases:
            if phase.length > self.model.max_length:
                raise ConfigError(
                    f"rows of {phase.length} tokens are longer than the model's "
                    f"{self.model.max_length} positions; raise --task.model.max-length"
                )
        if not self.model.masked_words:
            raise ConfigError("masked words need their head: set --task.model.masked-words")
        if self.pretraining.next_sentence and not self.model.has_sentence_head:
            raise ConfigError(
                "pretraining.next_sentence needs a model of variant bert with pooler and "
                "next_sentence; set them, or --task.pretraining.no-next-sentence"
            )

    @property
    def line(self) -> str:
        """A text for the run's verb, with the mask token of published or trained vocabularies."""
        published = self.weights is not None or self.vocabulary.path is not None
        mask = "<mask>" if self.model.variant == "roberta" and published else "[MASK]"
        return f"The economy is {mask}."

    @property
    def best(self) -> str:
        """The perplexity of masked words in the development documents, where there are any."""
        return "dev_mlm_perplexity" if self.dev is not None else ""

    def module(self, execution: Execution) -> BertForPreTraining:
        """BERT with both pre-training heads."""
        return BertForPreTraining(self.model, execution)

    def batch_shapes(self) -> tuple[dict[str, jax.ShapeDtypeStruct], ...]:
        """A shape for each phase."""
        return tuple(
            {name: jax.ShapeDtypeStruct(*spec) for name, spec in shapes.items()}
            for shapes in self.pretraining.shapes()
        )

    def init(self, model: BertForPreTraining, key: jax.Array) -> Variables:
        """Initialises variables with random values."""
        return model.init(key, jnp.zeros((batch_multiple(), 1), jnp.int32))

    def pretrained(self, model: BertForPreTraining) -> Variables:
        """The encoder of `weights` and the heads that they have, in place of fresh parameters."""
        return {} if self.weights is None else {"params": load_text_backbone(self.weights, model)}

    def prepare(self, batch: Any, key: jax.Array | None = None) -> Any:
        """Puts beside each row what its words and its next sentence count in the loss.

        The loss is sum(masked losses) / (number of masked words + 1e-5), plus the mean of the
        next-sentence losses, over the whole batch (`run_pretraining.py`).
        """
        return with_loss_weights(batch)

    def loss(self, model, variables: Variables, batch, *, train: bool = False, rngs=None) -> Loss:
        """Masked words' mean cross-entropy plus the next sentence's, and each alone."""
        batch = batch if "per_row" in batch else self.prepare(batch)
        return pretraining_loss(model, variables, batch, train=train, rngs=rngs)

    def example(self, seed: int) -> Batch:
        """Random tokens in the longest rows, a third of each padding at most, any place masked."""
        shapes = max(self.batch_shapes(), key=lambda each: each["input_ids"].shape[1])
        rng, (rows, length) = np.random.default_rng(seed), shapes["input_ids"].shape
        batch = {name: np.zeros(spec.shape, spec.dtype) for name, spec in shapes.items()}
        size = self.model.vocab_size
        real = rng.integers(2 * length // 3, length + 1, (rows, 1))
        mask = (np.arange(length) < real).astype(np.int32)
        batch["attention_mask"] = mask
        ids = rng.integers(0, size, (rows, length))
        batch["input_ids"] = np.where(mask, ids, self.model.pad_id).astype(np.int32)
        if self.pretraining.next_sentence:
            batch["token_type_ids"] = (np.arange(length) > real // 2).astype(np.int32) * mask
            batch["next_sentence"] = rng.integers(0, 2, rows).astype(np.int32)
        else:
            batch["segments"] = mask * (1 + (np.arange(length) > real // 2))
            batch["positions"] = np.broadcast_to(np.arange(length, dtype=np.int32), mask.shape)
        positions_shape = shapes["masked_positions"].shape
        batch["masked_positions"] = (rng.random(positions_shape) * real).astype(np.int32)
        batch["masked_ids"] = rng.integers(0, size, positions_shape).astype(np.int32)
        batch["masked_weights"] = (rng.random(positions_shape) < 0.8).astype(np.float32)
        return {name: np.asarray(leaf, shapes[name].dtype) for name, leaf in batch.items()}

    def probe(self, model, variables: Variables, batch) -> dict[str, jax.Array]:
        """Both heads' logits, and the encoder on small weights, which shows a norm's epsilon."""
        words, sentences = pretraining_logits(model, variables, batch)
        inputs = (batch["input_ids"], None, batch["attention_mask"])
        encoded = states_on_small(model, variables, *inputs, scale=1e-6)
        outputs = {
            "masked words": words[..., : self.model.vocab_size],
            "hidden on small weights": encoded,
        }
        return outputs if sentences is None else outputs | {"next sentence": sentences}

    def units(self, batch: Batch) -> int:
        """Tokens, padding not counted."""
        return int(batch["attention_mask"].sum())

    def open(self, folder: epath.Path, seed: int, host: int = 0) -> MaskedLanguageData:
        """Opens the documents, trains the vocabulary or takes the run's own, and plans.

        Development documents are read here too, for their mistakes to show before training.
        """
        documents = self.data.open()
        size = self.model.vocab_size
        tokenizer = run_tokenizer(
            folder,
            host,
            size,
            lambda: self._new_tokenizer(documents),
            spare_rows=self.weights is not None,
        )
        self._check_tokenizer(tokenizer)
        store = TokenizedDocuments.build(documents, tokenizer)
        if self.dev is not None:
            TokenizedDocuments.build(self.dev.open(), tokenizer)
        return MaskedLanguageData(
            store, self.pretraining.plan(store), Processor(tokenizer), self.workers
        )

    def _check_tokenizer(self, tokenizer: EncoderTokenizer) -> None:
        """Raises ConfigError where examples would be arranged otherwise than by the tokenizer."""
        check_inputs(self.model, tokenizer, self.pretraining.next_sentence)
        cls, sep = (tokenizer.cls_id,), (tokenizer.sep_id,)
        if tokenizer.template.single != (cls, sep):
            raise ConfigError(
                "the tokenizer's post_processor does not put its cls_token before a text and its "
                "sep_token behind it, as examples for pre-training have them"
            )
        bert = InputTemplate((cls, sep), (cls, sep, sep), second_type=1)
        if self.pretraining.next_sentence and tokenizer.template != bert:
            raise ConfigError(
                "next_sentence arranges pairs as BERT does, [CLS] A [SEP] B [SEP], which the "
                "tokenizer does not: set --task.pretraining.no-next-sentence"
            )

    def _new_tokenizer(self, documents: Any) -> EncoderTokenizer:
        vocabulary, size = self.vocabulary, self.model.vocab_size
        texts = document_sentences(documents, vocabulary.sentences)
        return word_pieces(vocabulary.path, self.weights, texts, size, vocabulary.lowercase)

    def evaluators(self) -> tuple[MaskedLanguageEvaluator]:
        """Losses and accuracies on the development documents, in the last phase."""
        last = replace(self.pretraining.phases[-1], steps=None)
        pretraining = replace(self.pretraining, phases=(last,))
        return (
            MaskedLanguageEvaluator(
                dev=self.dev, pretraining=pretraining, batches=self.dev_batches
            ),
        )

    def rehearsal(self) -> MaskedLanguage:
        """Some thousand parameters on a few bundled addresses."""
        model = small_bert(self.model, vocab_size=401, max_length=48)
        phases = (Phase(24, 8, 4, steps=2), Phase(48, 8, 7, steps=None))
        phases = phases if len(self.pretraining.phases) > 1 else phases[1:]
        return replace(
            self,
            model=model,
            data=BundledDocuments("held_out"),
            dev=None if self.dev is None else BundledDocuments("held_out"),
            pretraining=replace(self.pretraining, phases=phases),
            vocabulary=WordPieces(sentences=2000),
            weights=None,
            dev_batches=1,
            workers=0,
        )


def with_loss_weights(batch: dict[str, Any]) -> dict[str, Any]:
    """Adds `per_word` and `per_row` [B]: the weights of a row's words and of its next sentence."""
    rows = batch["input_ids"].shape[0]
    masked = 1.0 / (batch["masked_weights"].sum() + SLACK)
    return {
        **batch,
        "per_word": jnp.full((rows,), 1.0, jnp.float32) * masked,
        "per_row": jnp.full((rows,), 1.0 / rows, jnp.float32),
    }


def pretraining_logits(model, variables, batch, *, train: bool = False, rngs=None):
    """Logits of the masked words `[B, M, V]` and of the next sentence `[B, 2]` or None."""
    packing = {name: batch.get(name) for name in ("segments", "positions")}
    out = model.apply(
        variables,
        batch["input_ids"],
        batch["token_type_ids"],
        batch["attention_mask"],
        batch["masked_positions"],
        **packing,
        train=train,
        rngs=rngs,
    )
    return out.mlm_logits, out.nsp_logits


def pretraining_loss(model, variables, batch, *, train: bool = False, rngs=None) -> Loss:
    """The loss of a batch that `with_loss_weights` prepared, or of some of its rows."""
    words, sentences = pretraining_logits(model, variables, batch, train=train, rngs=rngs)
    weights = batch["masked_weights"] * batch["per_word"][:, None]  # [B, M]
    vocab_size = model.config.vocab_size
    mlm, _ = label_smoothed_loss(words, batch["masked_ids"], weights, 0.0, vocab_size)
    metrics = {"mlm_loss": mlm}
    if not train:  # a pass over the logits that only the evaluation pays
        correct = (words.argmax(-1) == batch["masked_ids"]).astype(jnp.float32)
        metrics["mlm_accuracy"] = (correct * weights).sum()
    total = mlm
    if "next_sentence" in batch:
        labels = batch["next_sentence"]
        nsp, _ = label_smoothed_loss(sentences, labels, batch["per_row"])
        correct = (sentences.argmax(-1) == labels).astype(jnp.float32)
        metrics |= {"nsp_loss": nsp, "nsp_accuracy": (correct * batch["per_row"]).sum()}
        total = total + nsp
    return Loss(total, batch["per_row"].sum(), metrics, {})


@lru_cache(maxsize=4)
def _loss_program(model):
    @jax.jit
    def run(variables, batch):
        loss = pretraining_loss(model, variables, with_loss_weights(batch))
        return {"loss": loss.total, **loss.metrics}

    return run


@dataclass(frozen=True, kw_only=True)
class MaskedLanguageEvaluator(CheckedFields):
    """Losses and accuracies of both objectives on the same examples at every evaluation."""

    name: str = "masked language"
    dev: DocumentsConfig | None
    pretraining: Pretraining
    """How examples are made; its only phase has no number of steps."""
    batches: PositiveInt = 16

    def evaluate(self, model, variables, processor: Processor, *, final: bool) -> Evaluation:
        """`dev_loss`, `dev_mlm_loss`, `dev_mlm_perplexity` and so on; none without documents."""
        if self.dev is None:
            return Evaluation({})
        store = TokenizedDocuments.build(self.dev.open(), processor.tokenizer)
        plan, run = self.pretraining.plan(store), _loss_program(model)
        losses = [
            jax.device_get(run(variables, plan.batch(store, 0, step)))
            for step in range(self.batches)
        ]
        metrics = {f"dev_{n}": float(np.mean([batch[n] for batch in losses])) for n in losses[0]}
        metrics["dev_mlm_perplexity"] = float(np.exp(metrics["dev_mlm_loss"]))
        rows = self.batches * self.pretraining.phases[0].rows
        return Evaluation(metrics, notes=[f"{rows:,} examples of the development documents"])


@dataclass
class MaskedLanguageData(PlannedData):
    """Documents as ids, the plan of examples, and the tokenizer."""

    def describe(self) -> str:
        """Documents, sentences, steps an epoch, how full the rows are."""
        plan = self.plan
        one_sentence = (
            f"; {plan.one_sentence:,} documents hold a single sentence, so all their pairs have "
            "the label of a random next one: end sentences with a mark, put one on each line with "
            "--task.data.sentences lines, or set --task.pretraining.no-next-sentence"
        ) * bool(plan.one_sentence)
        return (
            f"{len(self.store):,} documents; {plan.steps_per_epoch:,.0f} steps an epoch, "
            f"rows {plan.fill:.0%} full of tokens{one_sentence}"
        )
