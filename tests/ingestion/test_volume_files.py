from pathlib import Path

import pytest

from radiogen.ingestion.sources import pair_volumes


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["lung1_image.nrrd", "lung1_label.nrrd"], {"lung1": ["lung1_label.nrrd"]}),
        (["R01-001.nii.gz", "R01-001.seg.nii.gz"], {"R01-001": ["R01-001.seg.nii.gz"]}),
        (["a.nii.gz", "a_seg.nii.gz", "b.nii.gz"], {"a": ["a_seg.nii.gz"], "b": []}),
        (
            ["imagesTr/lung_001.nii.gz", "labelsTr/lung_001.nii.gz"],
            {"lung_001": ["labelsTr/lung_001.nii.gz"]},
        ),
        (["imagesTr/x_0000.nii.gz", "labelsTr/x.nii.gz"], {"x": ["labelsTr/x.nii.gz"]}),
        (
            ["ct/P1_R_1.nii.gz", "mask/P1_R_1.nii.gz", "ct/P1_R_10.nii.gz", "mask/P1_R_10.nii.gz"],
            {"P1_R_1": ["mask/P1_R_1.nii.gz"], "P1_R_10": ["mask/P1_R_10.nii.gz"]},
        ),
        (["ct/P1.nii.gz", "masks/P1.nii.gz"], {"P1": ["masks/P1.nii.gz"]}),
        (["image/phantom.nii.gz", "mask/mask.nii.gz"], {"phantom": ["mask/mask.nii.gz"]}),
        (["P1/ct.nii.gz", "P1/lesion.nii.gz", "P1/lungs.nii.gz"], {"P1": ["P1/lesion.nii.gz"]}),
        (
            ["P1/scan.mha", "P1/scan-GTV.mha", "P1/scan_mask.mha"],
            {"P1": ["P1/scan-GTV.mha", "P1/scan_mask.mha"]},
        ),
    ],
)
def test_masks_go_with_the_scan_of_their_name(files, expected):
    pairs, left_out = pair_volumes([Path("root", file) for file in files])
    assert {
        pair.name: [path.relative_to("root").as_posix() for path in pair.masks] for pair in pairs
    } == expected
    assert left_out == {}


def test_a_mask_of_another_name_is_not_taken_and_counted():
    pairs, left_out = pair_volumes([Path("a.nii.gz"), Path("b_seg.nii.gz"), Path("a_lung_mask.nii.gz")])
    assert [(pair.name, pair.masks) for pair in pairs] == [("a", ())]
    assert left_out == {"mask without a CT": 2}


def test_files_of_other_folders_beside_ct_and_mask_are_no_scans_and_counted():
    files = ["ct/P1_R_1", "ct/P1_R_2", "mask/P1_R_1", "readers/P1_R_1", "readers/P1_R_2", "more/P2"]
    pairs, left_out = pair_volumes([Path("root", f"{file}.nii.gz") for file in files])
    assert [(pair.name, len(pair.masks)) for pair in pairs] == [("P1_R_1", 1), ("P1_R_2", 0), ("P2", 0)]
    assert left_out == {"volume file of the name of a CT in another folder": 2}
