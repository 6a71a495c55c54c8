"""Pictures in a page: whole while they are light, smaller beyond."""

from report.made_run import draw_png

from radiogen.report.stills import embed_pictures


def test_heavy_pictures_are_made_smaller_and_light_ones_are_left(tmp_path):
    heavy, light = tmp_path / "heavy.png", tmp_path / "light.png"
    draw_png(heavy, (500, 400), noise=True)
    draw_png(light, (30, 20))
    whole = embed_pictures([heavy, light])
    assert all(data.startswith("data:image/png") for data in whole.values())
    smaller = embed_pictures([heavy, light], heaviest_bytes=100_000)
    assert smaller[light] == whole[light]
    assert smaller[heavy].startswith("data:image/jpeg") and len(smaller[heavy]) < len(whole[heavy])


def test_the_limit_is_kept_by_what_stands_in_the_page(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path in paths:
        draw_png(path, (500, 400), noise=True)
    raw = sum(path.stat().st_size for path in paths)
    page = embed_pictures(paths, heaviest_bytes=raw + 1000)  # enough for the files, not for their base64
    assert sum(len(data) for data in page.values()) <= raw + 1000
