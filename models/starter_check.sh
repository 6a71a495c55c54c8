#!/bin/bash
# What the starter model is worth on lesions that it has not seen: LIDC nodules of held-out patients (a loosened box, a
# click), then whole scans with true lesions, with a loosened and a jittered box and without a box, then phantoms, where a
# Dice below 0.85 with boxes or below 0.7 without fails. Usage: models/starter_check.sh WORK DATA MODEL
set -euo pipefail
work=$1 data=$2 model=$3
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")

python "$here/nodule_crops.py" "$data/lidc_nodules" "$work"
radiogen ingest "$work/nodules-held-out" -o "$work/nodules" --cohort lidc_idri --id-from patient-id \
    --patient-pattern '(.+)_R_\d+' --quiet
python "$root/benchmarks/nodules.py" "$work/nodules" "$model" --rows "$work/nodules.csv"

radiogen ingest "$data/lung_4d_113" -o "$work/held-out" --cohort lung_4d --quiet
radiogen ingest "$data/lidc_idri_partial/LIDC-IDRI-0001" -o "$work/held-out" --cohort lidc_idri --quiet
radiogen ingest "$data/ibsi_ct_phantom/dicom" -o "$work/held-out" --quiet
radiogen ingest "$data/pyradiomics_lung1/lung1_image.nrrd" -o "$work/held-out" --cohort pyradiomics_tests --quiet \
    --outline "$data/pyradiomics_lung1/lung1_label.nrrd"
for patient in LUNG1-002 LUNG1-003; do
    radiogen ingest "$data/lung1_002_003/$patient" -o "$work/held-out" --cohort nsclc_radiomics --roi 'GTV-[0-9]' --quiet
done
radiogen evaluate "$work/held-out" --model "$model" --jitter 0,0.05,0.1,0.2 --loosen 0.1 -o "$work/jitter/jitter.csv"
radiogen segment "$work/held-out" -o "$work/auto" --model "$model" --prior auto
radiogen evaluate "$work/auto" "$work/held-out" -o "$work/auto-evaluation/evaluation.csv"

radiogen phantoms -o "$work/phantoms" --patients 16 --first 3001 --seed 21
radiogen ingest "$work/phantoms/dicom" -o "$work/unseen" --cohort phantoms --clinical "$work/phantoms/clinical.csv" \
    --quiet || test $? = 3  # some patients of the phantom cohort are broken on purpose, one has no outline
for prior in box auto; do
    radiogen segment "$work/unseen" -o "$work/unseen-$prior" --model "$model" --prior $prior --quiet || test $? = 3
    radiogen evaluate "$work/unseen-$prior" "$work/unseen" -o "$work/unseen-$prior-evaluation/evaluation.csv" || test $? = 3
done
python - "$work" <<'PYTHON'
import csv
import sys
from pathlib import Path
from statistics import mean

for prior, least in (("box", 0.85), ("auto", 0.7)):
    with (Path(sys.argv[1]) / f"unseen-{prior}-evaluation" / "evaluation.csv").open(encoding="utf-8") as file:
        dice = mean(float(row["dice"]) for row in csv.DictReader(file) if row["dice"])
    print(f"unseen phantoms, {prior}: Dice {dice:.3f} (at least {least})")
    if dice < least:
        sys.exit(1)
PYTHON
