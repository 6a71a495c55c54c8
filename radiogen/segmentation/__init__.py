"""From a prompt to a lesion mask on the scanner's grid."""
