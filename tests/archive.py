"""A small archive on this machine: an S3 server with made patients, and the index of its series."""

import csv
import logging
import uuid
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import boto3
import pydicom
from moto.server import ThreadedMotoServer

from radiogen.cohorts.index import COLUMNS

BUCKET = "made-archive"
CARD = """
title: Made patients in an archive
licence: CC BY-NC 4.0
patient_id_pattern: "PHANTOM-\\\\d{3}"
source: {idc: made}
series:
  - {part: ct, modality: CT}
  - {part: outline, modality: RTSTRUCT}
  - {part: outline, modality: SEG}
outline:
  kinds: [rtstruct, seg]
  roi: "GTV.*"
  segment: "Heart|Tissue"
"""


@dataclass(frozen=True)
class Archive:
    """Where it is, the card of its cohort and the rows of its index."""

    endpoint: str
    card: Path
    index: Path
    rows: list[dict[str, str]]

    def client(self):
        return boto3.client(
            "s3", "us-east-1", endpoint_url=self.endpoint, aws_access_key_id="x", aws_secret_access_key="x"
        )

    def keys(self, series):
        listed = self.client().list_objects_v2(Bucket=BUCKET, Prefix=f"{series}/")
        return [item["Key"] for item in listed["Contents"]]


def serve(dicom: Path, folder: Path) -> tuple[Archive, ThreadedMotoServer]:
    """Put the series of a folder into a new server, named as the Imaging Data Commons names them."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    card, index = folder / "made.yaml", folder / "index.csv"
    card.write_text(CARD)
    archive = Archive(endpoint, card, index, [])
    client = archive.client()
    client.create_bucket(Bucket=BUCKET, ACL="public-read")
    series = defaultdict(list)
    for path in sorted(path for path in dicom.rglob("*") if path.is_file()):
        series[str(pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID)].append(path)
    for uid, files in series.items():
        name = str(uuid.uuid5(uuid.NAMESPACE_OID, uid))
        for path in files:
            key = f"{name}/{uuid.uuid5(uuid.NAMESPACE_OID, path.name)}.dcm"
            client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes(), ACL="public-read")
        archive.rows.append(_row(uid, name, files))
    write_rows(index, archive.rows)
    return archive, server


def _row(uid, name, files):
    head = pydicom.dcmread(files[0], stop_before_pixels=True)
    return {
        "collection_id": "made",
        "analysis_result_id": "",
        "PatientID": head.PatientID,
        "StudyInstanceUID": head.StudyInstanceUID,
        "SeriesInstanceUID": uid,
        "Modality": head.Modality,
        "instanceCount": str(len(files)),
        "series_size_MB": f"{sum(path.stat().st_size for path in files) / 1e6:.6f}",
        "license_short_name": "CC BY-NC 4.0",
        "aws_bucket": BUCKET,
        "crdc_series_uuid": name,
    }


def write_rows(path, rows):
    """A CSV of index rows."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(COLUMNS))
        writer.writeheader()
        writer.writerows(rows)
    return path
