"""Benchmarks BERT base against Hugging Face's PyTorch BERT: training steps and inference.

    pip install -e .[bench]
    python benchmarks/bert.py --turns 5

Both train the same network in float32 on 8 rows of 128 random tokens, with dropout 0.1, Adam with
weight decay, and the losses of masked tokens and of the next sentence. Both compute the vocabulary
logits at the 20 masked positions of each row, then at all 128. Ours is the compiled step of
`jaxformers train`. The peer uses the settings that are fastest on this machine: scaled dot-product
attention, fused AdamW, gradients set to None. Inference runs the encoder and the pooler on 8 rows.
The two alternate in one process. On a GPU, `--gpu` measures BERT large instead.
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
    """Pre-training on batches of one shape."""
    plan = Pretraining((Phase(length, rows, masked),))
    task = MaskedLanguage(config, BundledDocuments(), pretraining=plan)
    fields = dict(optimizer=BertAdam(), schedule=BertLinear(), clip_norm=1.0) | changes
    return Experiment("benchmark", task, steps=1_000_000, **fields)


def random_batch(config: BertConfig, rows: int, length: int, masked: int) -> dict[str, np.ndarray]:
    """Full rows of random tokens, of which `masked` positions are predicted in each row."""
    rng = np.random.default_rng(0)
    positions = np.sort(rng.permuted(np.tile(np.arange(length), (rows, 1)), axis=1)[:, :masked])
    types = np.tile(np.arange(length) > length // 2, (rows, 1))
    return {
        "input_ids": rng.integers(0, config.vocab_size, (rows, length), np.int32),
        "token_type_ids": types.astype(np.int32),
        "attention_mask": np.ones((rows, length), np.int32),
        "masked_positions": positions.astype(np.int32),
        "masked_ids": rng.integers(0, config.vocab_size, (rows, masked), np.int32),
        "masked_weights": np.ones((rows, masked), np.float32),
        "next_sentence": rng.integers(0, 2, rows, np.int32),
    }


def peer(kind: str):
    """Hugging Face's BERT base of class `kind`, randomly initialised."""
    import torch
    import transformers

    torch.manual_seed(0)
    torch.set_num_threads(frame.cores())
    return getattr(transformers, kind)(transformers.BertConfig(attn_implementation="sdpa"))


def peer_step(batch: dict[str, np.ndarray], gathered: bool) -> Run:
    """Returns a function that runs one training step of the peer.

    With `gathered`, vocabulary logits are computed at the masked positions only.
    """
    import torch
    from torch.nn.functional import cross_entropy

    model = peer("BertForPreTraining").train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.01, fused=True)
    ids, types, mask, positions, words, nsp = (
        torch.from_numpy(batch[name]).long()
        for name in (*INPUTS, "masked_positions", "masked_ids", "next_sentence")
    )
    rows = torch.arange(len(ids))[:, None]

    def logits():
        if not gathered:
            outputs = model(ids, attention_mask=mask, token_type_ids=types)
            return outputs.prediction_logits, outputs.seq_relationship_logits
        outputs = model.bert(ids, attention_mask=mask, token_type_ids=types)
        hidden = outputs.last_hidden_state[rows, positions]
        return model.cls.predictions(hidden), model.cls.seq_relationship(outputs.pooler_output)

    def run():
        optimizer.zero_grad(set_to_none=True)
        mlm, sentence = logits()
        loss = cross_entropy(mlm.flatten(0, 1), words.flatten()) + cross_entropy(sentence, nsp)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return run


def our_inference(batch: dict[str, np.ndarray]) -> tuple[Run, float]:
    """A function that encodes the batch, and its FLOPs."""
    model = Bert(BertConfig.base(), Execution())
    inputs = [batch[name] for name in INPUTS]
    variables = jax.jit(model.init)(jax.random.key(0), inputs[0][:1])
    encode = jax.jit(model.apply)
    flops = model_flops(model.apply, variables, *inputs)
    return lambda: jax.block_until_ready(encode(variables, *inputs)), flops


def peer_inference(batch: dict[str, np.ndarray]) -> Run:
    """A function that encodes the batch with the peer."""
    import torch

    model = peer("BertModel").eval()
    ids, types, mask = (torch.from_numpy(batch[name]).long() for name in INPUTS)

    def run():
        with torch.inference_mode():
            model(ids, attention_mask=mask, token_type_ids=types)

    return run


def compare(name: str, ours: Run, theirs: Run, flops: float, turns: int) -> dict:
    """Times both; a ratio is the peer's time over ours (above 1, ours is faster)."""
    seconds, peak = frame.beside_product({"ours": ours, "peer": theirs}, turns)
    fastest, medians = ({n: f(s) for n, s in seconds.items()} for f in (min, statistics.median))
    result = {
        "what": name,
        "ours_s": fastest["ours"],
        "peer_s": fastest["peer"],
        "ratio_fastest": fastest["peer"] / fastest["ours"],
        "ratio_median": medians["peer"] / medians["ours"],
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
    """Training steps with vocabulary logits at the masked positions, and at every position."""
    config, results = BertConfig.base(), []
    for masked in (MASKED, LENGTH):
        batch = random_batch(config, ROWS, LENGTH, masked)
        experiment = pretraining(config, ROWS, LENGTH, masked)
        ours, theirs = our_step(experiment, batch), peer_step(batch, masked < LENGTH)
        name = f"training, 8 x 128, logits at {masked} positions"
        results.append(compare(name, ours, theirs, step_flops(experiment, batch), turns))
    return results


def inference(turns: int, lengths: list[int]) -> list[dict]:
    """Inference at each sequence length."""
    results = []
    for length in lengths:
        batch = random_batch(BertConfig.base(), ROWS, length, 1)
        ours, flops = our_inference(batch)
        name = f"inference, 8 x {length}"
        results.append(compare(name, ours, peer_inference(batch), flops, 3 * turns))
    return results


def large_on_gpu(turns: int) -> list[dict]:
    """BERT large in bfloat16 on this machine's GPU, at both lengths of its pre-training."""
    results, config = [], BertConfig.large()
    for length, rows, masked in ((128, 256, 20), (512, 48, 77)):
        experiment = pretraining(config, rows, length, masked, precision="bfloat16")
        batch = random_batch(config, rows, length, masked)
        run = our_step(experiment, batch)
        metrics = frame.on_gpu(run, step_flops(experiment, batch), turns)
        results.append(
            {"length": length, "rows": rows, "rows_per_s": rows / metrics["step_s"]} | metrics
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
        benchmarks = {"training": training, "inference": partial(inference, lengths=args.lengths)}
        results = [result for name in args.parts for result in benchmarks[name](args.turns)]
    frame.keep(args.json, results)


if __name__ == "__main__":
    main()
