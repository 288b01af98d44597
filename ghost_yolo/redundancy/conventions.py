"""Explain how the figures of `ghosts`, `pairs` and `correlate` are computed; printed under their tables."""

from __future__ import annotations

from ghost_yolo.redundancy.filters import NUM_RANDOM_DRAWS
from ghost_yolo.redundancy.kernels import MIN_POSITIONS_PER_UNKNOWN
from ghost_yolo.redundancy.two_pass import MAX_MAPS, MAX_POSITIONS

SURVEY_CONVENTIONS = {
    "layer": "index in the model; layers without weights are left out, since they only repeat existing maps",
    "trained_share_d3": "share of the sampled maps that a 3 x 3 depthwise kernel with a bias reproduces from their partner "
    "within the relative error (d1, d5, d7: the other kernel sizes); empty where there are fewer than "
    f"{MIN_POSITIONS_PER_UNKNOWN} (d x d + 1) positions to fit on",
    "trained_median_d3": "median relative error",
    "relative error": "mean squared error / variance of the map, on held-out positions: every second image is used to fit "
    "and the others to test; a single image is split into a left and a right half. 1 is the error of a constant; larger "
    "errors are possible",
    "mean squared error": "for the three most similar pairs of the plotted layer, in the units of the maps, on held-out "
    "positions; pairs.csv has the pairs of all layers and their relative errors",
    "partner": "the other map of the layer with the largest absolute correlation on the images to fit on: optimal for "
    "1 x 1, while a larger kernel might do better with another map",
    "trained_removable": "as the share for 3 x 3, but only of maps whose partner stays: two maps that reproduce each other "
    "count once",
    "trained_dead": "number of constant maps, which count in no share",
    "shuffled": "the same after the pixels of every map were shuffled independently",
    "untrained": "the same for an untrained network of the checkpoint's YAML, with BatchNorm statistics re-estimated on the "
    "images to fit on",
    "images": "resized to the nearest multiples of the stride without letterboxing, since the edges of grey bars would make "
    "maps alike",
    "inner": "with --inner, the same for each spatial convolution in a C2f or C3k2 row. A light block replaces these "
    "convolutions; the output of the row is mixed by its last 1 x 1 convolution",
    "sampling": f"at most {MAX_MAPS} maps per layer and {MAX_POSITIONS} positions per image, drawn with the seed",
}
FILTER_CONVENTIONS = {
    "mean, median, min": "of the cosine similarity of each filter to the most opposite filter of the same convolution; -1 is "
    "its negative",
    "random": "the same of as many Gaussian filters of the same shape: small filters are nearly opposite by chance. Mean and "
    f"median of {NUM_RANDOM_DRAWS} draws with the seed; std: standard deviation of a draw's mean; min: mean of the draws' minima",
    "zero": "number of zero filters, which are left out",
}
STAGE_CONVENTIONS = {
    "stage": "a layer that ghostify swapped and ghosts measured; the head has no maps of its own",
    "share of maps": "share of the stage's output maps that a 3 x 3 depthwise kernel reproduces from another map within the "
    "relative error: trained_share_d3 of ghosts",
    "median error of maps": "median relative error of these kernels: independent of the threshold and without ties; small "
    "means redundant",
    "share of inner maps": "mean share of the spatial convolutions in the stage, which a light block replaces; needs "
    "ghosts --inner",
    "isolated error": "relative error of the new block's maps, with this block alone in the trained model, after a brief trial "
    "reconstruction; every stage has the trained inputs and the same number of steps; needs ghostify --budget",
    "sequential error": "relative error after reconstruction from the first stage to the last: the inputs come from the new "
    "blocks before it, so their errors are included. Runs with --budget do not count, since they swap a selection; all "
    "runs have the same --reconstruct-steps",
    "sensitivity": "loss of the predictions plus relative error of the head's inputs, with this block alone in the trained model, "
    "after the same trial reconstruction",
    "rho": "Spearman's rank correlation, ties sharing their mean rank. If redundancy predicted a low cost, rho would be near "
    "-1 for shares and near +1 for the median error. Within: of ranks within each model, not scaled, so that a model "
    "with more stages has more weight",
    "p": "two-sided permutation p value of rho within; the stages of each model are permuted independently. Joint: models "
    "with exactly the same stages share one permutation, as if they were one network measured several times; - if no two "
    "have the same stages. Both are exact unless marked as sampled",
}
