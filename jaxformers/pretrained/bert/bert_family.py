"""BERT and its heads as a family of the registry."""

from __future__ import annotations

from jaxformers.models import (
    Bert,
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForSpanExtraction,
    BertForTokenClassification,
)
from jaxformers.pretrained.bert import bert_config, bert_google, bert_hf
from jaxformers.pretrained.family import (
    Family,
    FineTuning,
    FolderFormat,
    HuggingFaceFormat,
    token_inputs,
)
from jaxformers.text import HuggingFaceTokenizer, WordPiece

MODULES = {
    "bert": Bert,
    "bert_pretraining": BertForPreTraining,
    "bert_classification": BertForSequenceClassification,
    "bert_spans": BertForSpanExtraction,
    "bert_tokens": BertForTokenClassification,
}
BERT = Family(
    "bert",
    BertConfig,
    MODULES,
    token_inputs,
    tokenizers=(WordPiece, HuggingFaceTokenizer),
    uses={
        "fill_mask": (BertForPreTraining,),
        "classify": (BertForSequenceClassification,),
        "answer": (BertForSpanExtraction,),
        "tag": (BertForTokenClassification,),
        "embed": tuple(MODULES.values()),
    },
    fine_tuning=FineTuning(
        backbone="bert",
        # Masked words, the next sentence and spans mean the same on all data, so pre-training goes
        # on with its heads and SQuAD follows TriviaQA; a classifier, of texts or of tokens, is of
        # its data's classes.
        transferable_heads=(BertForPreTraining, BertForSpanExtraction),
        free_fields=(
            "dropout",
            "attention_dropout",
            "classifier_dropout",
            "pooler",
            "next_sentence",
            "masked_words",
            "labels",
            "label_names",
            "pad_id",
        ),
    ),
    formats=(
        FolderFormat(bert_google.recognises, bert_google.load, bert_google.load_tokenizer),
        HuggingFaceFormat(
            bert_config.MODEL_TYPE,
            "BERT",
            bert_hf.load,
            bert_hf.unsupported_reason,
            bert_hf.write,
            recognises_untyped=lambda config: "type_vocab_size" in config,
        ),
    ),
)
