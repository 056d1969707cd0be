"""Runs the authors' Unified-IO for `unified_io.py`: one prediction per line of standard input.

    PYTHON unified_io_peer.py REPOSITORY WEIGHTS BATCH.npz TOKENS

Imports only the authors' code and the old JAX that it needs. `jax.pxla`, from which the code takes
a type for an annotation, is missing in that JAX and is replaced here.
"""

import sys
import types

import flax
import jax
import numpy as np


def main(repository, weights, batch_file, tokens):
    sys.path.insert(0, repository)
    jax.pxla = types.SimpleNamespace(ShardedDeviceArray=np.ndarray)
    from uio import configs, network
    from uio.model import UnifiedIOModel

    module = network.Transformer(configs.CONFIGS["small"], configs.VAE_CONFIG)
    model = UnifiedIOModel(module, text_decoder_length=32, image_decoder_length=1)
    with open(weights, "rb") as file:
        params = jax.device_put(flax.serialization.msgpack_restore(file.read()))
    with np.load(batch_file) as arrays:
        ids, images = arrays["input_ids"], arrays["images"]
    batch = {
        "text_encoder_inputs": ids,
        "image_encoder_inputs": images,
        "image_input_masks": np.ones((len(ids), 576), np.int32),
        "image_encoder_pos_ids": np.arange(576)[None].repeat(len(ids), 0),
        "text_encoder_pos_ids": np.arange(ids.shape[1])[None].repeat(len(ids), 0),
    }
    predict = jax.jit(model.predict_batch_with_aux, static_argnums=range(3, 9))
    key = jax.random.PRNGKey(0)
    for _ in sys.stdin:
        decoder_params = {"decode_rng": key}
        output = predict(params, batch, decoder_params, False, 1, int(tokens), 256, None, False)
        assert output["image"].shape == (len(ids), 256, 256, 3)
        np.asarray(output["image"])
        print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
