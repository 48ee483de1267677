"""The mathematics of diffusion: pure functions of tensors and callables.

`schedule` noise levels and respacing; `process` forward and reverse formulas; `guidance`
classifier gradients; `samplers` the sampling loops; `losses` training losses and likelihoods.
"""
