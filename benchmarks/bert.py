"""BERT base, ours beside PyTorch's Hugging Face BERT, in one run: training steps and inference.

    pip install -e .[bench]
    python benchmarks/bert.py --turns 5

Both train the same network in float32 with dropout 0.1 on 8 rows of 128 random tokens, both losses,
Adam with decay; the words' logits are made at the 20 masked places of a row in both, then at all
128 in both. Ours is the compiled step that `jaxformers train` runs. The peer runs its fastest
settings here: scaled dot-product attention, fused AdamW, gradients set to None. Inference is the
encoder and the pooler over 8 rows. The two take turns. With a GPU, `--gpu` measures BERT large.
"""

from __future__ import annotations

import statistics
from functools import partial

import frame
import jax
import numpy as np
from frame import Run
from train_step import our_step

from jaxformers.costs import model_flops
from jaxformers.data import BundledDocuments, Phase, Pretraining
from jaxformers.layers import Execution
from jaxformers.models import Bert, BertConfig
from jaxformers.tasks import MaskedLanguage
from jaxformers.training import BertAdam, BertLinear, Experiment
from jaxformers.training.step import step_flops

ROWS, LENGTH, MASKED = 8, 128, 20
INPUTS = ("input_ids", "token_type_ids", "attention_mask")


def pretraining(config: BertConfig, rows: int, length: int, masked: int, **changes) -> Experiment:
    """Pre-training in one shape."""
    plan = Pretraining((Phase(length, rows, masked),))
    task = MaskedLanguage(config, BundledDocuments(), pretraining=plan)
    fields = dict(optimizer=BertAdam(), schedule=BertLinear(), clip_norm=1.0) | changes
    return Experiment("benchmark", task, steps=1_000_000, **fields)


def random_batch(config: BertConfig, rows: int, length: int, masked: int) -> dict[str, np.ndarray]:
    """Full rows of random tokens; `masked` places of each are predicted."""
    rng = np.random.default_rng(0)
    places = np.sort(rng.permuted(np.tile(np.arange(length), (rows, 1)), axis=1)[:, :masked])
    types = np.tile(np.arange(length) > length // 2, (rows, 1))
    return {
        "input_ids": rng.integers(0, config.vocab_size, (rows, length), np.int32),
        "token_type_ids": types.astype(np.int32),
        "attention_mask": np.ones((rows, length), np.int32),
        "masked_positions": places.astype(np.int32),
        "masked_ids": rng.integers(0, config.vocab_size, (rows, masked), np.int32),
        "masked_weights": np.ones((rows, masked), np.float32),
        "next_sentence": rng.integers(0, 2, rows, np.int32),
    }


def peer(kind: str):
    """Hugging Face's BERT base."""
    import torch
    import transformers

    torch.manual_seed(0)
    torch.set_num_threads(frame.cores())
    return getattr(transformers, kind)(transformers.BertConfig(attn_implementation="sdpa"))


def peer_step(batch: dict[str, np.ndarray], gathered: bool) -> Run:
    """A call makes one training step of the peer."""
    import torch
    from torch.nn.functional import cross_entropy

    model = peer("BertForPreTraining").train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.01, fused=True)
    ids, types, mask, places, words, nsp = (
        torch.from_numpy(batch[name]).long()
        for name in (*INPUTS, "masked_positions", "masked_ids", "next_sentence")
    )
    rows = torch.arange(len(ids))[:, None]

    def logits():
        if not gathered:
            found = model(ids, attention_mask=mask, token_type_ids=types)
            return found.prediction_logits, found.seq_relationship_logits
        found = model.bert(ids, attention_mask=mask, token_type_ids=types)
        hidden = found.last_hidden_state[rows, places]
        return model.cls.predictions(hidden), model.cls.seq_relationship(found.pooler_output)

    def run():
        optimizer.zero_grad(set_to_none=True)
        mlm, sentence = logits()
        loss = cross_entropy(mlm.flatten(0, 1), words.flatten()) + cross_entropy(sentence, nsp)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return run


def our_inference(batch: dict[str, np.ndarray]) -> tuple[Run, float]:
    """A call encodes the batch; its FLOPs."""
    model = Bert(BertConfig.base(), Execution())
    inputs = [batch[name] for name in INPUTS]
    variables = jax.jit(model.init)(jax.random.key(0), inputs[0][:1])
    encode = jax.jit(model.apply)
    flops = model_flops(model.apply, variables, *inputs)
    return lambda: jax.block_until_ready(encode(variables, *inputs)), flops


def peer_inference(batch: dict[str, np.ndarray]) -> Run:
    """The same of the peer."""
    import torch

    model = peer("BertModel").eval()
    ids, types, mask = (torch.from_numpy(batch[name]).long() for name in INPUTS)

    def run():
        with torch.inference_mode():
            model(ids, attention_mask=mask, token_type_ids=types)

    return run


def compared(name: str, ours: Run, theirs: Run, flops: float, turns: int) -> dict:
    """Seconds of both, their ratio (above 1 ours is faster), and our share of the peak."""
    seconds, peak = frame.beside_product({"ours": ours, "peer": theirs}, turns)
    fastest, middle = ({n: f(s) for n, s in seconds.items()} for f in (min, statistics.median))
    result = {
        "what": name,
        "ours_s": fastest["ours"],
        "peer_s": fastest["peer"],
        "ratio_fastest": fastest["peer"] / fastest["ours"],
        "ratio_median": middle["peer"] / middle["ours"],
        "share_of_peak": flops / fastest["ours"] / peak,
        "peak_gflops": peak / 1e9,
    }
    print(
        f"{name:38} {fastest['ours']:8.3f} s {fastest['peer']:8.3f} s  "
        f"{result['ratio_fastest']:.2f} (median {result['ratio_median']:.2f})  "
        f"{result['share_of_peak']:.0%} of {peak / 1e9:.0f} GFLOP/s",
        flush=True,
    )
    return result


def training(turns: int) -> list[dict]:
    """A step with the words' logits at the masked places, and at all."""
    config, results = BertConfig.base(), []
    for masked in (MASKED, LENGTH):
        batch = random_batch(config, ROWS, LENGTH, masked)
        experiment = pretraining(config, ROWS, LENGTH, masked)
        ours, theirs = our_step(experiment, batch), peer_step(batch, masked < LENGTH)
        name = f"training, 8 x 128, logits at {masked} places"
        results.append(compared(name, ours, theirs, step_flops(experiment, batch), turns))
    return results


def inference(turns: int, lengths: list[int]) -> list[dict]:
    """The encoder at each length."""
    results = []
    for length in lengths:
        batch = random_batch(BertConfig.base(), ROWS, length, 1)
        ours, flops = our_inference(batch)
        name = f"inference, 8 x {length}"
        results.append(compared(name, ours, peer_inference(batch), flops, 3 * turns))
    return results


def large_on_gpu(turns: int) -> list[dict]:
    """BERT large in bfloat16 on this machine's GPU, at both lengths of its pre-training."""
    results, config = [], BertConfig.large()
    for length, rows, masked in ((128, 256, 20), (512, 48, 77)):
        experiment = pretraining(config, rows, length, masked, precision="bfloat16")
        batch = random_batch(config, rows, length, masked)
        run = our_step(experiment, batch)
        found = frame.on_gpu(run, step_flops(experiment, batch), turns)
        results.append(
            {"length": length, "rows": rows, "rows_per_s": rows / found["step_s"]} | found
        )
        print(results[-1], flush=True)
    return results


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=["training", "inference"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[32, 128, 512], help="inference")
    parser.add_argument("--gpu", action="store_true", help="only BERT large, in bfloat16")
    args = parser.parse_args()
    if args.gpu:
        frame.need_gpu()
        results = large_on_gpu(args.turns)
    else:
        parts = {"training": training, "inference": partial(inference, lengths=args.lengths)}
        results = [each for part in args.parts for each in parts[part](args.turns)]
    frame.keep(args.json, results)


if __name__ == "__main__":
    main()
