import numpy as np
import pytest

from failsight.core.pictures import resize_with_pad


def test_a_wide_picture_stands_between_black_bars_by_hand():
    # columns 0, 80, 160, 240 at half size: the triangle over four pixels weighs 1, 3, 3, 1, cut off at the border:
    # left (3 * 0 + 3 * 80 + 1 * 160) / 7 = 57.14, right (1 * 80 + 3 * 160 + 3 * 240) / 7 = 182.86
    row = np.repeat(np.array([[0, 80, 160, 240]], np.uint8), 2, 0)
    picture = np.stack([row, row // 2, 0 * row + 9], axis=2)
    assert picture.shape == (2, 4, 3)
    found = resize_with_pad(picture, 2, 2)
    # one row of picture is left of two; half of the missing one, rounded down, lies above
    assert found[0, :, 0].tolist() == [57, 183]
    assert found[0, :, 2].tolist() == [9, 9]
    assert found[1].max() == 0


def test_a_picture_of_the_right_size_is_left_alone():
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    assert resize_with_pad(picture, 6, 8) is picture


@pytest.mark.parametrize("old", [(224, 224), (480, 640), (65, 64), (30, 100), (7, 5), (64, 64)])
@pytest.mark.parametrize("new", [(64, 64), (224, 224), (48, 96)])
def test_equal_to_what_openpi_makes_with_pillow(old, new):
    image = pytest.importorskip("PIL.Image")
    picture = np.random.default_rng(1).integers(0, 256, (*old, 3), np.uint8)
    height, width = new
    ratio = max(old[1] / width, old[0] / height)
    small = image.fromarray(picture).resize((int(old[1] / ratio), int(old[0] / ratio)), image.Resampling.BILINEAR)
    wanted = image.new("RGB", (width, height))
    wanted.paste(small, (int((width - small.width) / 2), int((height - small.height) / 2)))
    np.testing.assert_array_equal(resize_with_pad(picture, height, width), np.asarray(wanted))
