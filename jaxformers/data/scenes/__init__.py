"""A small world of emoji scenes, with exact truth for tasks on images and text.

Imports `data.captions`, `data.images`, `data.pipeline`, `fields` and `errors`.
"""

from jaxformers.data.scenes.composition import Scene, SceneObject
from jaxformers.data.scenes.drawings import THINGS, Drawing, Thing, drawings
from jaxformers.data.scenes.emoji_scenes import EmojiScenes
from jaxformers.data.scenes.maps import PAINTS, depth_picture, masks_of, paint_masks
from jaxformers.data.scenes.scene_images import EmojiSceneImages
from jaxformers.data.scenes.truth import (
    Expression,
    Question,
    Relation,
    captions,
    expressions,
    located_caption,
    questions,
    region_caption,
    relations,
)

__all__ = [
    "PAINTS",
    "THINGS",
    "Drawing",
    "EmojiSceneImages",
    "EmojiScenes",
    "Expression",
    "Question",
    "Relation",
    "Scene",
    "SceneObject",
    "Thing",
    "captions",
    "depth_picture",
    "drawings",
    "expressions",
    "located_caption",
    "masks_of",
    "paint_masks",
    "questions",
    "region_caption",
    "relations",
]
