#!/bin/bash
# Train the starter model: phantoms, and synthetic lesions in the lungs of three real scans whose own lesions are
# avoided. Started anew it goes on where it was. Usage: models/starter.sh WORK SHARED_DATA MODEL
set -euo pipefail
work=$1 data=$2 model=$3
here=$(dirname "$0")

ingest() {  # exit code 3: some patients of the phantom cohort are broken on purpose
    radiogen ingest "$@" -o "$work/cases" --quiet || test $? = 3
}

radiogen phantoms -o "$work/phantoms" --patients 24 --first 1001 --spacing 1.5,1.5,2.5 --seed 4
ingest "$work/phantoms/dicom" --cohort phantoms --clinical "$work/phantoms/clinical.csv"
ingest "$data/lung_4d_113" --cohort lung_4d --roi "Tumor.*|LN.*"
ingest "$data/lidc_idri_partial/LIDC-IDRI-0001" --cohort lidc_idri --agreement 0.25
ingest "$data/pyradiomics_lung1/lung1_image.nrrd" --cohort pyradiomics_tests \
    --outline "$data/pyradiomics_lung1/lung1_label.nrrd"
radiogen train "$work/cases" -o "$model" --preset small --config "$here/starter.yaml" --device cpu --seed 4
