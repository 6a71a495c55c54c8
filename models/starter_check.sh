#!/bin/bash
# What the starter model is worth on true lesions that it has not seen: four scans, of which it knows the lungs of
# three. With a box that is off by up to a share of its size, and without a box. Usage: starter_check.sh WORK DATA MODEL
set -euo pipefail
work=$1 data=$2 model=$3

radiogen ingest "$data/lung_4d_113" -o "$work/held-out" --cohort lung_4d --quiet
radiogen ingest "$data/lidc_idri_partial/LIDC-IDRI-0001" -o "$work/held-out" --cohort lidc_idri --quiet
radiogen ingest "$data/ibsi_ct_phantom/dicom" -o "$work/held-out" --quiet
radiogen ingest "$data/pyradiomics_lung1/lung1_image.nrrd" -o "$work/held-out" --cohort pyradiomics_tests --quiet \
    --outline "$data/pyradiomics_lung1/lung1_label.nrrd"
radiogen evaluate "$work/held-out" --model "$model" --jitter 0,0.05,0.1,0.15,0.2 -o "$work/jitter/jitter.csv"
radiogen segment "$work/held-out" -o "$work/auto" --model "$model" --prior auto
radiogen evaluate "$work/auto" "$work/held-out" -o "$work/auto-evaluation/evaluation.csv"
