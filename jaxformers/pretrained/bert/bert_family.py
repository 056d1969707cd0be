"""BERT, RoBERTa and DistilBERT with their heads as a family of the registry."""

from __future__ import annotations

from functools import partial

from jaxformers.models import (
    Bert,
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForSpanExtraction,
    BertForTokenClassification,
)
from jaxformers.pretrained.bert import (
    bert_config,
    bert_google,
    bert_hf,
    distilbert_hf,
    roberta_hf,
)
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
# One network under three names; a model is written under the first unless a format is chosen.
ROBERTA_TITLES = {"roberta": "RoBERTa", "xlm-roberta": "XLM-RoBERTa", "camembert": "CamemBERT"}
BERT = Family(
    "bert",
    BertConfig,
    MODULES,
    token_inputs,
    tokenizers=(WordPiece, HuggingFaceTokenizer),
    # RoBERTa's positions depend on which token is padding.
    special_ids=lambda config: {"pad_id": config.pad_id} if config.variant == "roberta" else {},
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
            recognises_untyped=bert_hf.recognises_untyped,
        ),
        *(
            HuggingFaceFormat(
                model_type,
                title,
                roberta_hf.load,
                roberta_hf.unsupported_reason,
                partial(roberta_hf.write, model_type=model_type),
                recognises_untyped=roberta_hf.recognises_untyped,
            )
            for model_type, title in ROBERTA_TITLES.items()
        ),
        HuggingFaceFormat(
            distilbert_hf.MODEL_TYPE,
            "DistilBERT",
            distilbert_hf.load,
            distilbert_hf.unsupported_reason,
            distilbert_hf.write,
            distilbert_hf.TOKENIZER_SETTINGS,
        ),
    ),
)
