"""A picture to try things out with."""

import io

from PIL import Image, ImageDraw

_SIZE = (1600, 1200)


def sample_picture() -> bytes:
    """Draw a landscape and encode it as JPEG."""
    sky = Image.linear_gradient("L").resize(_SIZE)
    picture = Image.merge(
        "RGB", (sky.point(lambda v: 90 + v // 2), sky.point(lambda v: 150 + v // 3), sky.point(lambda _: 235))
    )
    draw = ImageDraw.Draw(picture)
    draw.ellipse((1150, 140, 1370, 360), fill=(255, 214, 92))
    draw.polygon([(0, 900), (420, 380), (820, 900)], fill=(88, 104, 138))
    draw.polygon([(500, 900), (980, 300), (1500, 900)], fill=(66, 80, 112))
    draw.rectangle((0, 890, 1600, 1200), fill=(62, 122, 74))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=88)
    return out.getvalue()
