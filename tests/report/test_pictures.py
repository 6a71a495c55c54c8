"""Pictures in a page: whole while they are light, smaller beyond."""

from report.made_run import draw_png

from radiogen.report.pictures import embed_pictures


def test_heavy_pictures_are_made_smaller_and_light_ones_are_left(tmp_path):
    heavy, light = tmp_path / "heavy.png", tmp_path / "light.png"
    draw_png(heavy, (500, 400), noise=True)
    draw_png(light, (30, 20))
    whole = embed_pictures([heavy, light])
    assert all(data.startswith("data:image/png") for data in whole.values())
    smaller = embed_pictures([heavy, light], heaviest_bytes=100_000)
    assert smaller[light] == whole[light]
    assert smaller[heavy].startswith("data:image/jpeg") and len(smaller[heavy]) < len(whole[heavy])
