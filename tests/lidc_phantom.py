"""LIDC XML files for tests: a few readers, a few nodules."""

import SimpleITK as sitk

Z0, STEP = -100.0, 2.5


def ring(x0, y0, x1, y1):
    """The pixels round a rectangle, as LIDC readers leave them."""
    top = [(x, y0) for x in range(x0, x1)] + [(x1, y) for y in range(y0, y1)]
    return top + [(x, y1) for x in range(x1, x0, -1)] + [(x0, y) for y in range(y1, y0, -1)]


def roi(k, corners, inclusion="TRUE"):
    points = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in corners)
    head = f"<imageZposition>{Z0 + k * STEP} </imageZposition><inclusion>{inclusion}</inclusion>"
    return f"<roi>{head}{points}</roi>"


def write_xml(path, sessions):
    """One list of (malignancy or None, rois) a reader."""
    body = ""
    for number, nodules in enumerate(sessions):
        read = "".join(
            f"<unblindedReadNodule><noduleID>{number}-{n}</noduleID>{_rated(malignancy)}{''.join(rois)}"
            "</unblindedReadNodule>"
            for n, (malignancy, rois) in enumerate(nodules)
        )
        body += f"<readingSession>{read}</readingSession>"
    head = '<?xml version="1.0"?><LidcReadMessage xmlns="http://www.nih.gov">'
    head += "<ResponseHeader><SeriesInstanceUid>1.2.3</SeriesInstanceUid></ResponseHeader>"
    path.write_text(f"{head}{body}</LidcReadMessage>")
    return path


def _rated(malignancy):
    if malignancy is None:
        return ""
    ratings = f"<subtlety>5</subtlety><calcification>6</calcification><malignancy>{malignancy}</malignancy>"
    return f"<characteristics>{ratings}</characteristics>"


def grid():
    volume = sitk.Image((13, 11, 5), sitk.sitkInt16)
    volume.SetSpacing((0.7, 0.7, STEP))
    volume.SetOrigin((3.0, 4.0, Z0))
    return volume
