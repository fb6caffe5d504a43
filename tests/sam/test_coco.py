"""COCO folders: what is read, and one line for each way in which they are broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from profiler_kit.errors import InputError
from profiler_kit.formats.ladder_record import LadderRecord, Truth, read_ladder, write_record
from profiler_kit.formats.student_rows import category_rows
from profiler_kit.models.sam.accuracy import against_truth, encode, image_masks, read_masks_file, write_masks_file
from profiler_kit.models.sam.coco import load_coco
from profiler_kit.models.sam.prompts import PromptChoice, make_prompts
from tests.ladders import a_ladder

HINT = "Try --coco DIR with DIR/annotations/instances_val2017.json and DIR/val2017/*.jpg, or the json itself."
WANT = "expected COCO's instances json with images, annotations and their segmentation"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of 40 x 30; the third has a crowd only."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    for number in range(3):
        pixels = np.full((30, 40, 3), number * 40, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "val2017" / f"{number}.png")
    images = [{"id": 7 + n, "file_name": f"{n}.png", "height": 30, "width": 40} for n in range(3)]
    square = [[10, 5, 20, 5, 20, 15, 10, 15]]
    rle = {"size": [30, 40], "counts": [0, 30 * 2, 30 * 38]}
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": square, "area": 100, "bbox": []},
        {"id": 2, "image_id": 8, "category_id": 1, "iscrowd": 0, "segmentation": rle, "area": 60, "bbox": []},
        {"id": 3, "image_id": 8, "category_id": 1, "iscrowd": 0, "segmentation": square, "area": 100, "bbox": []},
        {"id": 4, "image_id": 9, "category_id": 1, "iscrowd": 1, "segmentation": rle, "area": 60, "bbox": []},
    ]
    write(tmp_path, {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]})
    return tmp_path


def json_of(folder: Path) -> Path:
    return folder / "annotations" / "instances_val2017.json"


def write(folder: Path, value: object) -> None:
    json_of(folder).write_text(json.dumps(value))


def change(folder: Path, how: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(json_of(folder).read_text())
    how(value)
    write(folder, value)


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        list(load_coco(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_masks_and_pixels(folder: Path) -> None:
    scenes = load_coco(folder)
    assert [scene.name for scene in scenes] == ["0.png", "1.png"]  # the crowd does not count
    first, second = scenes[0], scenes[1]
    assert first.image.shape == (30, 40, 3) and second.image[0, 0].tolist() == [40, 40, 40]
    assert [int(mask.sum()) for mask in first.masks] == [100] and first.masks[0, 5:15, 10:20].all()
    assert [int(mask.sum()) for mask in second.masks] == [60, 100] and second.masks[0, :, :2].all()
    assert len(load_coco(folder, limit=1)) == 1 and len(scenes[1:]) == 1
    assert [scene.name for scene in load_coco(json_of(folder))] == ["0.png", "1.png"]


def test_what_objects_are(folder: Path, tmp_path: Path) -> None:
    def rename(value: dict[str, Any]) -> None:
        value["annotations"][1]["category_id"] = 5  # which the json does not name
        value["annotations"][0]["category_id"] = None

    change(folder, rename)
    first, second = load_coco(folder)
    assert (first.categories, second.categories) == (("",), ("5", "x"))
    found = encode(np.concatenate([second.masks[:1], second.masks[:1]]))
    masks = image_masks(
        "a", (30, 40), found, [1.0] * 2, encode(second.masks), paired=True, categories=second.categories
    )
    write_masks_file(tmp_path / "masks.json", [masks])
    truth = against_truth(read_masks_file(tmp_path / "masks.json"))
    assert truth is not None and truth.categories == {"5": (1, 1.0), "x": (1, 0.0)}
    write_record(tmp_path / "results.json", record_of(truth))
    rows = category_rows(read_ladder(tmp_path / "results.json"))
    assert rows[["technique", "category", "true_masks", "miou"]].values.tolist() == [
        ["fp32", "5", 1, 1.0],
        ["fp32", "x", 1, 0.0],
    ]
    assert rows["of_baseline"][0] == 1.0 and np.isnan(rows["of_baseline"][1])


def record_of(truth: Truth) -> LadderRecord:
    """A ladder of one row that has these masks."""
    ladder = a_ladder()
    return replace(ladder, rows=(replace(ladder.rows[0], truth=truth),))


def annotate(value: dict[str, Any]) -> None:
    """A box and an area that are not those of the masks."""
    for number, one in enumerate(value["annotations"]):
        one.update(bbox=[1.5, 2, 10, 4 + number], area=1023.6)


def test_crowds_boxes_and_areas_as_annotated(folder: Path) -> None:
    change(folder, annotate)
    assert [scene.name for scene in load_coco(folder, crowds=True)] == ["0.png", "1.png", "2.png"]
    plain, annotated = load_coco(folder)[1], load_coco(folder, annotated=True)[1:][0]
    assert plain.boxes == plain.areas == ()
    assert annotated.boxes == ((1.5, 2, 11.5, 7), (1.5, 2, 11.5, 8))
    assert annotated.areas == (1023, 1023)  # below 32**2, as 1023.6 is
    boxes = make_prompts(annotated, PromptChoice("boxes")).boxes
    assert boxes is not None and boxes.tolist() == [[1.5, 2, 11.5, 7], [1.5, 2, 11.5, 8]]
    own = make_prompts(plain, PromptChoice("boxes")).boxes
    assert own is not None and own.tolist()[1] == [10, 5, 19, 14]
    masks = [encode(scene.masks) for scene in (plain, annotated)]
    truth = [
        against_truth([image_masks("a", (30, 40), found, [1.0] * 2, found, paired=True, true_areas=areas)])
        for found, areas in zip(masks, ((), (9216, 20)), strict=True)
    ]
    assert truth[0] is not None and truth[0].counts == (2, 0, 0)
    assert truth[1] is not None and truth[1].counts == (1, 0, 1)


@pytest.mark.parametrize(
    "broken", [{"bbox": []}, {"bbox": None}, {"bbox": [1, 2, "x", 4]}, {"area": None}, {"area": -1}, {"area": 1e400}]
)
def test_boxes_and_areas_that_are_none(folder: Path, broken: dict[str, Any]) -> None:
    change(folder, annotate)
    change(folder, lambda value: value["annotations"][0].update(broken))
    assert len(list(load_coco(folder))) == 2
    with pytest.raises(InputError) as caught:
        list(load_coco(folder, annotated=True))
    assert str(caught.value).startswith(f"{json_of(folder)}: annotation 1 has bbox ")
    assert str(caught.value).endswith("expected [x, y, width, height] and a number of pixels. Leave --annotated out.")


def test_missing_images_are_counted_before_anything_runs(folder: Path) -> None:
    (folder / "val2017" / "1.png").unlink()
    assert refused(folder) == (
        f"{json_of(folder)}: 1 of 2 annotated images are missing (first: 1.png), expected all of them in one of "
        f"{folder}/val2017, {folder}, {folder}/annotations. Copy them there, or use fewer with --num-images."
    )
    assert len(load_coco(folder, limit=1)) == 1
    change(folder, lambda value: value["images"][0].update(file_name="../../etc/passwd"))
    assert "2 of 2 annotated images are missing (first: ../../etc/passwd)" in refused(folder)


def test_no_folder_no_json_or_two(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    assert refused(empty) == f"{empty}: no annotations (instances*.json) in it, expected a COCO data set. {HINT}"
    assert refused(empty / "x") == f"{empty / 'x'}: no such folder, expected a COCO data set. {HINT}"
    other = folder / "annotations" / "instances_train2017.json"
    other.write_text("{}")
    assert refused(folder) == (
        f"{folder}: 2 sets of annotations (instances_train2017.json, instances_val2017.json), expected one. "
        f"Try --coco {json_of(folder)}."
    )


def test_a_json_that_is_not_cocos(folder: Path) -> None:
    path = json_of(folder)
    for text, reason in {
        "{}": f"{path}: no images in it, {WANT}. {HINT}",
        '{"images": [], "annotations": []}': f"{path}: no images in it, {WANT}. {HINT}",
        "": f"{path}: the file is empty (0 bytes), expected COCO's instances json. {HINT}",
    }.items():
        path.write_text(text)
        assert refused(folder) == reason
    for text in ("[1]", "hello", '{"images": [{"x": 1}], "annotations": [1]}', '{"images": 3}'):
        path.write_text(text)
        assert refused(folder).startswith(f"{path}: ") and HINT in refused(folder)


def test_annotations_that_cannot_be_used(folder: Path) -> None:
    change(folder, lambda value: value["annotations"][0].update(segmentation=[[1, 2]]))
    assert refused(folder).startswith(f"{json_of(folder)}: annotation 1 has a segmentation that cannot be decoded (")
    change(folder, lambda value: value.update(annotations=value["annotations"][3:]))
    assert refused(folder) == (
        f"{json_of(folder)}: no image has an annotation to use (crowds do not count), {WANT}. {HINT}"
    )


def test_images_of_another_size_than_the_json_says(folder: Path) -> None:
    change(folder, lambda value: value["images"][0].update(height=31))
    assert refused(folder) == (
        f"{folder}/val2017/0.png: 40 x 30 pixels, expected 40 x 31 as {json_of(folder)} says. The images and the json "
        "are not of the same data set."
    )
