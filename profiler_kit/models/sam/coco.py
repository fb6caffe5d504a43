"""Read a COCO folder as scenes, each image when it is asked for."""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np

from profiler_kit.errors import InputError
from profiler_kit.files import require_file
from profiler_kit.models.sam.accuracy import decode
from profiler_kit.models.sam.scenes import Mask, Scene, read_image

if TYPE_CHECKING:
    from pycocotools.coco import COCO

_EXPECTED: Final = "expected COCO's instances json with images, annotations and their segmentation"
_HINT: Final = "Try --coco DIR with DIR/annotations/instances_val2017.json and DIR/val2017/*.jpg, or the json itself."


class CocoScenes(Sequence[Scene]):
    """The annotated images of a COCO folder in order of their id, each decoded when it is indexed.

    `masks` of a Scene are the annotations that cover a pixel, in the file's order, those of crowds only when asked for;
    unlike those of generated scenes they may overlap. `boxes` and `areas` are the annotated ones, when asked for.
    """

    def __init__(
        self, coco: COCO, files: Sequence[Path], ids: Sequence[int], source: Path, *, annotated: bool, crowds: bool
    ) -> None:
        self._coco = coco
        self._files = files
        self._ids = ids
        self.source = source
        self._annotated, self._crowds = annotated, crowds

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, at: int) -> Scene: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Scene]: ...
    def __getitem__(self, at: int | slice) -> Scene | Sequence[Scene]:
        if isinstance(at, slice):
            files, ids = self._files[at], self._ids[at]
            return CocoScenes(self._coco, files, ids, self.source, annotated=self._annotated, crowds=self._crowds)
        path, wanted = self._files[at], self._coco.imgs[self._ids[at]]
        image = read_image(path)
        size = (int(wanted.get("height", -1)), int(wanted.get("width", -1)))
        if image.shape[:2] != size:
            raise InputError(
                f"{path}: {image.shape[1]} x {image.shape[0]} pixels, expected {size[1]} x {size[0]} as {self.source} "
                "says. The images and the json are not of the same data set."
            )
        usable = _usable(self._coco, self._ids[at], crowds=self._crowds)
        known = [(mask, annotation) for annotation in usable if (mask := self._mask(annotation, size)).any()]
        masks = np.array([mask for mask, _ in known], dtype=bool).reshape(-1, *size)
        names = tuple(self._category(annotation) for _, annotation in known)
        if not self._annotated:
            return Scene(image, masks, path.name, categories=names)
        shapes = [self._shape(annotation) for _, annotation in known]
        return Scene(image, masks, path.name, tuple(box for box, _ in shapes), tuple(area for _, area in shapes), names)

    def __iter__(self) -> Iterator[Scene]:
        return (self[at] for at in range(len(self)))

    def _category(self, annotation: dict[str, Any]) -> str:
        """Its name, or its number where the json names none."""
        number = annotation.get("category_id")
        return str(self._coco.cats.get(number, {}).get("name", number)) if isinstance(number, int) else ""

    def _shape(self, annotation: dict[str, Any]) -> tuple[tuple[float, float, float, float], int]:
        """The annotated box, x0, y0, x1, y1, and area, in whole pixels."""
        try:
            x, y, width, height = (float(value) for value in annotation["bbox"])
            area = math.floor(annotation["area"])  # in the same class of size
            if not (all(map(math.isfinite, (x, y, width, height))) and min(width, height, area) >= 0):
                raise ValueError("they are no box and area")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"{self.source}: annotation {annotation.get('id')} has bbox {annotation.get('bbox')} and area "
                f"{annotation.get('area')}, expected [x, y, width, height] and a number of pixels. "
                "Leave --annotated out."
            ) from error
        return (x, y, x + width, y + height), area

    def _mask(self, annotation: dict[str, Any], size: tuple[int, int]) -> Mask:
        try:
            rle = self._coco.annToRLE(annotation)
            if tuple(rle["size"]) != size:
                raise ValueError(f"it is of {rle['size']} pixels")
            return decode(rle)
        except Exception as error:  # pycocotools raises whatever its C code meets: a bare Exception, TypeError, ...
            raise InputError(
                f"{self.source}: annotation {annotation.get('id')} has a segmentation that cannot be decoded "
                f"({' '.join(str(error).split()) or type(error).__name__}), {_EXPECTED}. {_HINT}"
            ) from error


def load_coco(folder: Path, *, limit: int | None = None, annotated: bool = False, crowds: bool = False) -> CocoScenes:
    """The images with at least one usable annotation, at most `limit` of them; the images themselves are not read yet.

    folder: holds annotations/instances_*.json (or instances*.json) and the images; or the json file itself, with the
    images in a folder beside it or above. annotated: with boxes and areas as the json has them. crowds: their
    annotations are usable too.

    Raises InputError when there is no json or more than one, when it is not COCO's, when nothing is annotated,
    or when image files are missing (all are looked for before anything runs).
    """
    source = _find_json(folder)
    coco = _read(source)
    ids = [image for image in sorted(coco.imgs) if any(True for _ in _usable(coco, image, crowds=crowds))][:limit]
    if not ids:
        uncounted = "" if crowds else " (crowds do not count)"
        raise InputError(f"{source}: no image has an annotation to use{uncounted}, {_EXPECTED}. {_HINT}")
    files = _find_images(source, [coco.imgs[image] for image in ids])
    return CocoScenes(coco, files, ids, source, annotated=annotated, crowds=crowds)


def _usable(coco: COCO, image: int, *, crowds: bool) -> Iterator[dict[str, Any]]:
    return (a for a in coco.imgToAnns.get(image, ()) if a.get("segmentation") and (crowds or not a.get("iscrowd")))


def _find_json(folder: Path) -> Path:
    if folder.is_file():
        return folder
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected a COCO data set. {_HINT}")
    found = sorted({*folder.glob("annotations/instances*.json"), *folder.glob("instances*.json")})
    if not found:
        raise InputError(f"{folder}: no annotations (instances*.json) in it, expected a COCO data set. {_HINT}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:4])
        raise InputError(f"{folder}: {len(found)} sets of annotations ({names}), expected one. Try --coco {found[-1]}.")
    return found[0]


def _read(source: Path) -> COCO:
    from pycocotools.coco import COCO

    require_file(source, "COCO's instances json", _HINT)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how long it took
            coco = COCO(str(source))
    except (ValueError, KeyError, TypeError, AssertionError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{source}: not COCO's format ({reason}), {_EXPECTED}. {_HINT}") from error
    for part in ("images", "annotations"):
        if not isinstance(coco.dataset.get(part), list) or not coco.dataset[part]:
            raise InputError(f"{source}: no {part} in it, {_EXPECTED}. {_HINT}")
    return coco


def _find_images(source: Path, images: Sequence[dict[str, Any]]) -> list[Path]:
    """The file of each image; raises InputError that counts those that are nowhere."""
    base = source.parent.parent if source.parent.name == "annotations" else source.parent
    split = source.stem.removeprefix("instances").lstrip("_")
    places = [base / split, base / "images" / split, base / "images", base, source.parent]
    found, missing = [], []
    for image in images:
        name = str(image.get("file_name", ""))
        if not name or not all(isinstance(image.get(side), int) for side in ("height", "width")):
            raise InputError(
                f"{source}: image {image.get('id')} lacks file_name, height or width, {_EXPECTED}. {_HINT}"
            )
        inside = [place / name for place in places if _is_inside(place, name)]
        path = next((path for path in inside if path.is_file()), None)
        if path is None:
            missing.append(name)
        else:
            found.append(path)
    if missing:
        looked = ", ".join(dict.fromkeys(str(place) for place in places if place.is_dir()))
        raise InputError(
            f"{source}: {len(missing)} of {len(images)} annotated images are missing (first: {missing[0]}), expected "
            f"all of them in one of {looked}. Copy them there, or use fewer with --num-images."
        )
    return found


def _is_inside(place: Path, name: str) -> bool:
    """Whether a name from the json stays below the folder."""
    return Path(os.path.normpath(place / name)).is_relative_to(os.path.normpath(place))
