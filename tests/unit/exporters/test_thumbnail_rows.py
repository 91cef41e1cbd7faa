"""The sizes of thumbnails that Synapse is told to make."""

from mediarepo.exporters.synapse.rows import _THUMBNAILS

ASKED = sorted({8 * n for n in range(1, 251)} | {10 * n for n in range(1, 201)} | {47, 54, 57, 66, 375, 390, 412, 414})


def test_no_two_sizes_are_equally_near_to_what_clients_ask_for() -> None:
    sizes = [(width, height) for width, height, method in _THUMBNAILS if method == "scale"]
    ties = []
    for width in ASKED:
        for height in ASKED:
            enough = [one for one in sizes if one[0] >= width or one[1] >= height] or sizes
            near = sorted(abs((width - one[0]) * (height - one[1])) for one in enough)
            if len(near) > 1 and near[0] == near[1]:
                ties.append((width, height))

    assert ties == []
