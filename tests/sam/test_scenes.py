"""Scenes: masks are exactly what was painted; folders of photographs are read as their EXIF says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from profiler_kit.errors import InputError, OptionError
from profiler_kit.models.sam.scenes import _background, generate_scenes, load_images, read_image


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 200), (300, 151)])
def test_masks_are_exactly_the_painted_pixels(height: int, width: int) -> None:
    for i, scene in enumerate(generate_scenes(3, height=height, width=width, seed=5)):
        bare = _background(np.random.default_rng([5, i]), height, width)  # what the scene was painted over
        untouched = (scene.image == np.clip(np.rint(bare), 0, 255)).all(axis=2)
        covered = scene.masks.any(axis=0)
        assert scene.size == (height, width)
        assert scene.image.dtype == np.uint8 and scene.masks.dtype == np.bool_
        assert untouched[~covered].all()
        assert untouched[covered].mean() < 0.01  # paint that happens to have the background's colour
        assert (scene.masks.sum(axis=0) <= 1).all()
        assert scene.masks.any(axis=(1, 2)).all() and len(scene.masks) >= 1


def test_scenes_depend_on_seed_and_number_alone() -> None:
    np.random.default_rng().normal()
    one = generate_scenes(1, height=64, width=64, seed=1)[0]
    again = generate_scenes(3, height=64, width=64, seed=1)
    other = generate_scenes(1, height=64, width=64, seed=2)[0]
    assert np.array_equal(one.image, again[0].image) and np.array_equal(one.masks, again[0].masks)
    assert not np.array_equal(again[0].image, again[1].image)
    assert not np.array_equal(one.image, other.image)
    assert [scene.name for scene in again] == ["scene-0", "scene-1", "scene-2"]


def test_every_kind_of_object_has_the_area_of_its_formula() -> None:
    """Areas of fully visible shapes of a known radius: pi r^2, 4 r^2 flat, 3 sqrt(3) / 4 r^2, star."""
    from profiler_kit.models.sam import scenes

    x, y = np.meshgrid(np.arange(400) - 199.5, np.arange(400) - 199.5)

    def centred(rng: object, height: int, width: int) -> tuple[np.ndarray, np.ndarray, float]:
        return x.astype(np.float32), y.astype(np.float32), 150.0

    rng = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "_placed", centred)
        disc, _, triangle, star = (draw(rng, 400, 400).sum() for draw in scenes._OUTLINES)
    corners = [(150.0 if k % 2 == 0 else 75.0) * np.exp(1j * np.pi * k / 5) for k in range(10)]
    shoelace = sum((a.conjugate() * b).imag for a, b in zip(corners, corners[1:] + corners[:1], strict=True)) / 2
    assert disc == pytest.approx(np.pi * 150**2, rel=0.01)
    assert triangle == pytest.approx(3 * np.sqrt(3) / 4 * 150**2, rel=0.01)
    assert star == pytest.approx(shoelace, rel=0.01)


def test_impossible_scenes() -> None:
    for text, arguments in {
        "--scenes 0: expected 1 or more.": {"count": 0, "height": 64, "width": 64},
        "a scene of 64 x 31 pixels: expected at least 32 on each side.": {"count": 1, "height": 31, "width": 64},
        "0 objects in a scene: expected 1 or more.": {"count": 1, "height": 64, "width": 64, "objects": 0},
    }.items():
        with pytest.raises(OptionError) as caught:
            generate_scenes(**arguments)
        assert str(caught.value) == text


def test_load_images_sorted_turned_and_without_masks(tmp_path: Path) -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show it
    Image.fromarray(pixels).save(tmp_path / "b.png", exif=exif)
    Image.new("RGBA", (5, 3), (9, 8, 7, 255)).save(tmp_path / "a.PNG")
    Image.new("L", (5, 3), 77).save(tmp_path / "c.jpeg")
    (tmp_path / "notes.txt").write_text("no image")
    a, b, c = load_images(tmp_path)
    assert [s.name for s in (a, b, c)] == ["a.PNG", "b.png", "c.jpeg"]
    assert np.array_equal(b.image, np.rot90(pixels, -1))
    assert (a.image == (9, 8, 7)).all() and c.image.shape == (3, 5, 3)
    assert a.masks.shape == (0, 3, 5)
    assert [s.name for s in load_images(tmp_path, limit=1)] == ["a.PNG"]


def test_sixteen_bits_a_grey(tmp_path: Path) -> None:
    grey = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == (grey >> 8)[..., None]).all()


def test_folders_and_files_that_cannot_be_read(tmp_path: Path) -> None:
    def message(folder: Path) -> str:
        with pytest.raises(InputError) as caught:
            load_images(folder)
        return str(caught.value)

    missing = tmp_path / "nowhere"
    alone = "Leave --images out to generate some."
    assert message(missing) == f"{missing}: no such folder, expected a folder of JPEG or PNG files. {alone}"
    assert message(tmp_path) == (
        f"{tmp_path}: no image in the folder, expected files ending in .jpg, .jpeg, .png. {alone}"
    )
    broken = tmp_path / "x.jpg"
    broken.write_text("no image")
    assert message(broken) == f"{broken}: this is a file, expected a folder of JPEG or PNG files. {alone}"
    repair = "expected a JPEG or PNG image. Repair the file or take it out."
    assert message(tmp_path) == f"{broken}: cannot be decoded (no image data), {repair}"
    Image.effect_noise((64, 64), 50).save(broken)
    broken.write_bytes(broken.read_bytes()[:-800])
    text = message(tmp_path)
    assert text.startswith(f"{broken}: cannot be decoded (") and text.endswith(f"), {repair}")
