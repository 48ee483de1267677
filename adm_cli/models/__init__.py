"""The networks `UNet`, `SuperResUNet` and `NoisyClassifier`; parameter names as published."""
