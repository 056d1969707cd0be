"""The verbs that read pictures: the function that runs each, its arguments, its help."""

from __future__ import annotations

from jaxformers.cli import image_verbs, verbs
from jaxformers.cli.options import CODE, TRUNCATE, Verb, whole_number

IMAGE_VERBS: dict[str, Verb] = {
    "classify-image": Verb(
        verbs.classify_image,
        "the classes of pictures",
        ("RUN", "PICTURE..."),
        """Prints for each picture its path and the likeliest classes with their probabilities, tabs
between them. A folder stands for the pictures in it. RUN is a run's folder, one with published
weights, a single file of weights, or a hub's name.

examples:
  jaxformers classify-image runs/vit_demo shirt.png
  jaxformers classify-image google/vit-base-patch16-224 holiday/ --top 1""",
        (
            (
                "--top",
                dict(
                    metavar="N", type=whole_number, default=5, help="how many classes (default: 5)"
                ),
            ),
            (
                "--skip-damaged",
                dict(action="store_true", help="name pictures that do not decode, and go on"),
            ),
            CODE,
        ),
    ),
    "zero-shot": Verb(
        image_verbs.zero_shot,
        "the classes of pictures by their names alone",
        ("RUN", "PICTURE..."),
        """Prints for each picture its path and the likeliest of the given classes with their
probabilities, tabs between them. A folder stands for the pictures in it. RUN holds a CLIP or
SigLIP: a run's folder, one with published weights, a single file of weights, or a hub's name.
Several templates are averaged.

examples:
  jaxformers zero-shot openai/clip-vit-base-patch32 cat.jpg --name cat --name dog
  jaxformers zero-shot clip-folder photos/ --prompts oxford_flowers102
  jaxformers zero-shot clip-folder photos/ --names flowers.txt --template "a {}, a flower." """,
        (
            (
                "--name",
                dict(metavar="NAME", action="append", help="a class; may be given again"),
            ),
            ("--names", dict(metavar="FILE", help="a text file with a class on each line")),
            (
                "--prompts",
                dict(
                    metavar="NAME",
                    help="the shipped names and templates of a data set, such as "
                    "oxford_flowers102, or those of a .json file",
                ),
            ),
            (
                "--template",
                dict(
                    metavar="TEXT",
                    action="append",
                    help="a prompt with {} for the name; may be given again (default: a photo of "
                    "a {}.)",
                ),
            ),
            (
                "--top",
                dict(
                    metavar="N", type=whole_number, default=5, help="how many classes (default: 5)"
                ),
            ),
            TRUNCATE,
            CODE,
        ),
    ),
    "ask": Verb(
        image_verbs.ask,
        "Unified-IO's answer to a prompt, a text or a picture",
        ("RUN", "PROMPT"),
        """Prints the answer, or with --output writes the picture that is asked for. RUN holds a
Unified-IO with its image tokenizer and T5's vocabulary: a run's folder, one with published
weights, or a hub's name. Prompts are those of training; a location
token is written <extra_id_N>.

examples:
  jaxformers ask runs/unified_io "What does the image describe ?" --image cat.jpg
  jaxformers ask runs/unified_io "What is the depth map ?" --image cat.jpg --output depth.png""",
        (
            ("--image", dict(metavar="FILE", help="the picture that is asked about")),
            ("--output", dict(metavar="FILE", help="ask for a picture, and write it there")),
            (
                "--beams",
                dict(
                    metavar="N",
                    type=whole_number,
                    default=1,
                    help="beams of the search (default: 1)",
                ),
            ),
            (
                "--seed",
                dict(
                    metavar="N",
                    type=whole_number,
                    default=0,
                    help="seed for sampling a picture (default: 0)",
                ),
            ),
            CODE,
        ),
    ),
    "embed-images": Verb(
        image_verbs.embed_images,
        "a vector for every picture",
        ("RUN", "PICTURE..."),
        """Prints for each picture its path and its vector, tabs between the numbers, or writes all
vectors as a NumPy array [pictures, width], in the order in which a folder's names are sorted. Of
a CLIP or SigLIP it is the projected encoding, of a ViT, ResNet or BiT the input of its head. RUN
is a run's folder, one with published weights, a single file of weights, or a hub's name.

examples:
  jaxformers embed-images openai/clip-vit-base-patch32 photos/ --output photos.npy --normalize
  jaxformers embed-images google/vit-base-patch16-224 cat.jpg""",
        (
            ("--output", dict(metavar="FILE.npy", help="write an array in place of the lines")),
            ("--normalize", dict(action="store_true", help="bring vectors to length 1")),
            CODE,
        ),
    ),
    "probe": Verb(
        image_verbs.probe,
        "how well a model's frozen features tell the classes of pictures",
        ("RUN", "FOLDER"),
        """Prints accuracy and mean accuracy per class, in percent, of a classifier on frozen
features. FOLDER has a folder for each class below train and test, and perhaps below dev; else some
of the training pictures are held out. RUN is a run's folder, one with published weights, a single
file of weights, or a hub's name, of a CLIP, ViT, ResNet or BiT.

The method linear is CLIP's logistic regression, its penalty searched among 97 on the development
pictures; neighbours is the vote of the 1 to 21 nearest pictures. Features are computed once and
kept on disk.

examples:
  jaxformers probe openai/clip-vit-base-patch32 flowers/
  jaxformers probe runs/vit_demo flowers/ --method neighbours""",
        (
            (
                "--method",
                dict(choices=("linear", "neighbours"), default="linear", help="see above"),
            ),
            ("--projected", dict(action="store_true", help="CLIP's features after projection")),
            ("--normalize", dict(action="store_true", help="features at unit length, for linear")),
            CODE,
        ),
    ),
    "search": Verb(
        image_verbs.search,
        "the pictures of a folder that fit a text, or resemble a picture",
        ("RUN", "QUERY", "FOLDER"),
        """Prints the paths of the nearest pictures below FOLDER and their cosines, a tab between
them. QUERY is a text, or the path of a picture. RUN holds a CLIP or SigLIP, or for a picture as
QUERY any model that embed-images takes: a run's folder, one with published weights, a single file
of weights, or a hub's name.

The pictures' vectors are kept on disk: the next search reads only pictures that are new or have
changed, and one that was cut off goes on where it stopped.

examples:
  jaxformers search openai/clip-vit-base-patch32 "two dogs on a beach" photos/ --output hits.png
  jaxformers search clip-folder cat.jpg photos/ --top 10 --index photos-index""",
        (
            (
                "--top",
                dict(
                    metavar="N", type=whole_number, default=5, help="how many pictures (default: 5)"
                ),
            ),
            ("--index", dict(metavar="DIR", help="folder of the index (default: in the cache)")),
            ("--output", dict(metavar="FILE", help="write a figure of the pictures")),
            TRUNCATE,
            CODE,
        ),
    ),
    "explain": Verb(
        image_verbs.explain,
        "what a ViT's classes, a CLIP's match or a Unified-IO's answer rests on",
        ("RUN",),
        """Draws a heat map over the picture for each of the likeliest classes, and prints these
with their probabilities. RUN is a run's folder or one with published weights of a ViT. With
--text RUN holds a CLIP: the heat map shows where the text's match rests, its words are drawn on
red as deep as their share, and its cosine and the words' shares are printed. With --prompt RUN
holds a Unified-IO, whose answer in words is explained: by the patches of the picture, if there is
one, and by the words of the prompt.

Methods: attribution (Chefer et al., CVPR 2021) and generic (Chefer et al., ICCV 2021) tell
classes apart; rollout (Abnar and Zuidema 2020) and attention (the last layer's) do not.

examples:
  jaxformers explain runs/vit --image cat.jpg
  jaxformers explain google/vit-base-patch16-224 --image cat.jpg --method generic --top 1
  jaxformers explain openai/clip-vit-base-patch32 --image cat.jpg --text "a cat on a sofa"
  jaxformers explain runs/unified_io --image cat.jpg --prompt "What does the image describe ?" """,
        (
            ("--image", dict(metavar="FILE", help="the picture, which --prompt can do without")),
            (
                "--text",
                dict(metavar="TEXT", action="append", help="for a CLIP; may be given again"),
            ),
            ("--prompt", dict(metavar="TEXT", help="for a Unified-IO")),
            (
                "--answer",
                dict(metavar="TEXT", help="to --prompt (default: what the model generates)"),
            ),
            (
                "--method",
                dict(
                    metavar="METHOD",
                    help="see above (default: attribution, with --text and --prompt generic)",
                ),
            ),
            (
                "--top",
                dict(
                    metavar="N", type=whole_number, default=3, help="how many classes (default: 3)"
                ),
            ),
            (
                "--output",
                dict(
                    metavar="FILE",
                    default="explained.png",
                    help="the picture (default: explained.png)",
                ),
            ),
            CODE,
        ),
    ),
}
