"""How good masks are: measured by case and lesion, summed up by prompt, written for a person."""
