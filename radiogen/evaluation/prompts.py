"""What each prompt means: who said where to look."""

PROMPTS = {
    "oracle": "the prior was made from the true outline: an upper bound, not what a new patient gets",
    "jitter": "the prior was made from the true place, shaken",
    "human": "a person said where to look",
    "auto": "the program said where to look",
    "none": "nobody said where to look",
    "unknown": "no run record tells who said where to look",
}
TOLD = ("oracle", "jitter", "human")  # prompts that give the lesions away: finding them is no result
NO_PROMPT = "unknown"
NO_PREDICTION = "no prediction"
