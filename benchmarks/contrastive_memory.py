"""Per-chip memory of CLIP's contrastive loss in its plain and ring forms, from the TPU compiler.

    pip install -e .[tpu]
    python benchmarks/contrastive_memory.py --topology v5e:8x8 v5e:16x16

Compiles only the loss and its gradients, at the compiler's lowest effort; no TPU is needed. This is
done for each pod, for a global batch of `--batch` pairs and for `--rows` pairs per chip. Prints the
temporary buffers per chip, which exclude the embeddings and their gradients.
"""

from __future__ import annotations

from typing import get_args

import frame
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from jaxformers.planning.program import LEAST
from jaxformers.planning.topologies import tpu_pod
from jaxformers.sharding import MeshConfig, make_mesh
from jaxformers.tasks.image_text.contrastive_loss import Form, contrastive_loss

FORMS = [form for form in get_args(Form) if form != "auto"]
MEBIBYTE = 2**20


def temporaries(topology: str, batch: int, width: int, form: str) -> float:
    """MiB of temporary buffers per chip, without arguments and results."""
    pod = tpu_pod(topology)
    mesh = make_mesh(MeshConfig(data=-1), pod.devices)
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    embeds = jax.ShapeDtypeStruct((batch, width), jnp.float32, sharding=rows)
    scale = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))

    def loss(image, text, scale):
        return contrastive_loss(image, text, scale, form=form)

    with jax.set_mesh(mesh):
        gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
        compiled = gradients.lower(embeds, embeds, scale).compile(LEAST)
        memory = compiled.memory_analysis()
    return memory.temp_size_in_bytes / MEBIBYTE


def main() -> None:
    """Prints a line for each pod, batch size and form."""
    parser = frame.parser(__doc__)
    parser.add_argument("--topology", nargs="+", default=["v5e:8x8", "v5e:16x16"])
    parser.add_argument("--batch", type=int, default=32_768)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--width", type=int, default=512)
    args = parser.parse_args()
    results = []
    for topology in args.topology:
        chips = len(tpu_pod(topology).devices)
        for batch in dict.fromkeys((args.batch, args.rows * chips)):
            for form in FORMS:
                memory = temporaries(topology, batch, args.width, form)
                results.append([topology, chips, batch, form, memory])
                print(
                    f"{topology}, {chips} chips, {batch:,} pairs, {form}: {memory:.1f} MiB a chip"
                )
    frame.keep(args.json, results)


if __name__ == "__main__":
    main()
