#!/bin/bash
# Train the starter model: true LIDC nodules out of small crops, synthetic lesions in the lungs of five open chests and in
# phantoms. Patients whose sha256 is 1 modulo 5 are held out (nodule_crops.py). Then calibrate its automatic mode on
# copies of the chests with lesions laid in. Started again it goes on where it was. Usage: models/starter.sh WORK DATA MODEL
set -euo pipefail
work=$1 data=$2 model=$3
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")

chest() {
    mkdir -p "$work/chests/$1"
    ln -sfn "$(cd "$data/chests/$1" && pwd)/ct.nii.gz" "$work/chests/$1/$1.nii.gz"
    radiogen ingest "$work/chests/$1/$1.nii.gz" -o "$work/cases" --cohort "$here/starter_chests.yaml" --quiet "${@:2}"
}

python "$here/nodule_crops.py" "$data/lidc_nodules" "$work"
radiogen ingest "$work/nodules-training" -o "$work/cases" --cohort lidc_idri --id-from patient-id \
    --patient-pattern '(.+)_R_\d+' --quiet
chest ts_chest_contrast
chest elastix_right_lung_baseline
chest elastix_right_lung_followup
chest cptac_c3n00247 --outline "$data/chests/cptac_c3n00247/lesion_zone.nii.gz"
chest lungpetctdx_a0001 --outline "$data/chests/lungpetctdx_a0001/tumour_box.nii.gz"
radiogen phantoms -o "$work/phantoms" --patients 16 --first 1001 --spacing 1.5,1.5,2.5 --seed 4
radiogen ingest "$work/phantoms/dicom" -o "$work/cases" --cohort phantoms --clinical "$work/phantoms/clinical.csv" \
    --quiet || test $? = 3  # some patients of the phantom cohort are broken on purpose
radiogen train "$work/cases" -o "$model" --preset small --config "$here/starter.yaml" --device cpu --seed 18
test -d "$work/copies" || python "$root/benchmarks/synthetic_scans.py" "$work/cases" "$work/copies" --seed 5 \
    --cohorts starter_chests --crops "$work/cases" --copies 9 --sizes 15 110 --crop-share 0.65
radiogen model calibrate "$model" "$work/copies" --device cpu
