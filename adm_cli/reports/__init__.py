"""How good a model is: likelihoods, and a classifier's accuracy and calibration."""
